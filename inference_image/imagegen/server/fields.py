"""Fields of a request's body: JSON, types, ranges, and the answer of a field that is refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from imagegen.contract import Outcome
from imagegen.errors import RequestRefusedError

__all__ = ["FIXED", "NOT_BLANK", "Fields", "Fixed", "refuse"]

NOT_BLANK: Final = r"[^ \t\n\r\f\v]"
"""What a text must hold one of; dialects of regular expressions differ on what ``\\S`` is."""

_MOST_SHOWN = 64


@dataclass(frozen=True)
class Fixed:
    """A field of OpenAI's that this server has one way for.

    Parameters
    ----------
    allowed
        Values that say what is done anyway; every other one is refused.
    reason
        Why there is no other way, or where else to say it.
    """

    allowed: tuple[str | int, ...]
    reason: str


FIXED: Final[Mapping[str, Fixed]] = {
    "response_format": Fixed(("b64_json",), "images are part of the answer"),
    "output_format": Fixed(("png",), "images are delivered without loss"),
    "output_compression": Fixed((100,), "PNG loses nothing, so that there is nothing to choose"),
    "quality": Fixed(("auto", "standard"), "say it with num_inference_steps and size"),
    "style": Fixed((), "say it in the prompt"),
    "background": Fixed(("auto", "opaque"), "images have no transparency"),
    "moderation": Fixed(("auto", "low"), "prompts and images are not moderated here"),
    "stream": Fixed((False,), "an answer comes when its images are ready"),
    "partial_images": Fixed((0,), "an answer comes when its images are ready"),
}
"""Clients of OpenAI's API send these. A value that would have no effect is refused, not ignored:
who asked for something must not believe to have got it."""


def refuse(param: str | None, message: str, *, code: str = "invalid_value") -> NoReturn:
    """Refuse a request with status 400.

    Parameters
    ----------
    param
        The field or header that is to blame, if one is.
    message
        What is wrong and what is allowed.
    code
        Machine-readable reason.
    """
    raise RequestRefusedError(
        outcome=Outcome.INVALID, status=400, code=code, message=message, param=param
    )


def _shown(text: str) -> str:
    return ascii(text[:_MOST_SHOWN])  # a text may hold what no answer can carry


def _no_constant(name: str) -> NoReturn:
    refuse(None, f"the body holds {name}, which is not JSON", code="invalid_json")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = next(name for name, times in names.items() if times > 1)
        refuse(_shown(twice)[1:-1], f"field {_shown(twice)} is there twice", code="invalid_json")
    return fields


class Fields:
    """The fields of a body; as in the OpenAI API, null is the same as leaving a field out.

    Parameters
    ----------
    body
        A JSON object in UTF-8.
    allowed
        Names of the fields it may have.

    Raises
    ------
    RequestRefusedError
        Status 400, if it is no such object or has other fields. The methods raise it too, with the
        field and what is allowed in it.
    """

    def __init__(self, body: bytes, allowed: Collection[str]) -> None:
        try:
            fields = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            refuse(None, "the body must be a JSON object in UTF-8", code="invalid_json")
        if not isinstance(fields, dict):
            refuse(None, "the body must be a JSON object", code="invalid_json")
        for name in fields:
            if name not in allowed:
                message = f"Unknown parameter: {_shown(name)}. Allowed: {', '.join(allowed)}"
                refuse(_shown(name)[1:-1], message, code="unknown_parameter")
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def get(self, name: str) -> Any:
        """Give a value as it is; None if the field is left out."""
        return self._fields.get(name)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Give a whole number of a range; in JSON, 2 and 2.0 are the same number."""
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            refuse(name, f"{name} must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Give a number of a range."""
        value = self._fields.get(name)
        if value is None:
            return None
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not right or not low <= value <= high or not math.isfinite(value):
            refuse(name, f"{name} must be a number from {low:g} to {high:g}")
        return float(value)

    def text(self, name: str, most: int) -> str | None:
        """Give a text that is not blank."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > most or not re.search(NOT_BLANK, value):
            refuse(name, f"{name} must be a text of 1 to {most} characters, not all of them blank")
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(name, f"{name} must be valid Unicode text, without lone surrogates")
        return value

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        """Give one of some texts."""
        value = self._fields.get(name)
        if value is None or (isinstance(value, str) and value in allowed):
            return value
        listed = ", ".join(allowed)
        refuse(
            name,
            f"{name} must be one of: {listed}"
            if allowed
            else f"there is no choice of {name} here: leave it out",
        )

    def check_fixed(self) -> None:
        """Refuse fields of OpenAI's that ask for what this server has not."""
        for name, fixed in FIXED.items():
            value = self._fields.get(name)
            if value is None or any(_same(value, each) for each in fixed.allowed):
                continue
            values = " or ".join(json.dumps(each) for each in fixed.allowed)
            told = f"{name} must be {values}" if values else f"there is no {name} here"
            refuse(name, f"{told}: {fixed.reason}", code="unsupported_value")


def _same(value: Any, allowed: str | int) -> bool:
    return isinstance(value, bool) is isinstance(allowed, bool) and bool(value == allowed)
