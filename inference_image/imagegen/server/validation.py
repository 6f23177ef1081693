"""The body of ``POST /v1/images/generations``: every field is checked before the engine sees it.

Diffusers itself accepts nonsense in silence (no steps, NaN as guidance, sizes it rounds), so that
nothing here is left to it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from imagegen.contract import Outcome
from imagegen.engines.base import GenerationSettings
from imagegen.errors import RequestRefusedError
from imagegen.server.settings import Defaults, Limits

__all__ = ["MAX_SEED", "EngineRules", "ImageRequest", "RequestRules"]

MAX_SEED = 2**32 - 1
"""CPU generators use 32 bits of a seed; larger ones would collide in silence."""

_FIELDS = (
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "output_format",
    "user",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
)
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_LEAST_SIDE = 16


@dataclass(frozen=True)
class EngineRules:
    """What the loaded model's architecture allows."""

    size_multiple: int
    max_side: int
    takes_negative_prompt: bool


@dataclass(frozen=True)
class ImageRequest:
    """A checked request."""

    prompt: str
    count: int
    seed: int | None
    negative_prompt: str | None
    settings: GenerationSettings
    request_class_size: tuple[int, int] | None
    request_class_steps: int | None


def _refuse(param: str | None, message: str, *, code: str = "invalid_value") -> NoReturn:
    raise RequestRefusedError(
        outcome=Outcome.INVALID, status=400, code=code, message=message, param=param
    )


def _no_constant(name: str) -> NoReturn:
    _refuse(None, f"the body holds {name}, which is not JSON", code="invalid_json")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse(None, "the body must be a JSON object in UTF-8", code="invalid_json")
    if not isinstance(fields, dict):
        _refuse(None, "the body must be a JSON object", code="invalid_json")
    for name in fields:
        if name not in _FIELDS:
            allowed = ", ".join(_FIELDS)
            shown = ascii(name[:64])  # a name may hold what no answer can carry
            _refuse(shown[1:-1], f"unknown field {shown}; allowed: {allowed}", code="unknown_field")
    # As in the OpenAI API, null is the same as leaving the field out.
    return {name: value for name, value in fields.items() if value is not None}


def _whole(fields: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _refuse(name, f"{name} must be a whole number from {low} to {high}")
    return value


def _text(fields: dict[str, Any], name: str, most: int) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        _refuse(name, f"{name} must be a text of 1 to {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(name, f"{name} must be valid Unicode text, without lone surrogates")
    return value


def _choice(fields: dict[str, Any], name: str, allowed: str) -> None:
    value = fields.get(name, allowed)
    if value != allowed:
        _refuse(name, f"{name} must be {allowed!r}")


@dataclass(frozen=True)
class RequestRules:
    """Checks requests against what is declared and what the model can do."""

    model_name: str
    defaults: Defaults
    limits: Limits
    engine: EngineRules

    def check(self, body: bytes) -> ImageRequest:
        """Check the body of a request.

        Raises
        ------
        RequestRefusedError
            Status 400, with the field and what is allowed in it.
        """
        fields = _parse(body)
        prompt = _text(fields, "prompt", self.limits.max_prompt_characters)
        if prompt is None:
            _refuse("prompt", "prompt is missing: say what the image shall show")
        if fields.get("model", self.model_name) != self.model_name:
            _refuse("model", f"model must be {self.model_name!r}", code="model_not_found")
        _text(fields, "user", self.limits.max_prompt_characters)
        _choice(fields, "response_format", "b64_json")
        _choice(fields, "output_format", "png")
        count = _whole(fields, "n", 1, self.limits.max_images_per_request)
        seed = _whole(fields, "seed", 0, MAX_SEED)
        size = self._size(fields)
        steps = _whole(fields, "num_inference_steps", 1, self.limits.max_steps)
        width, height = size or (self.defaults.width, self.defaults.height)
        return ImageRequest(
            prompt=prompt,
            count=count or 1,
            seed=seed,
            negative_prompt=self._negative_prompt(fields),
            settings=GenerationSettings(
                width=width,
                height=height,
                steps=steps or self.defaults.steps,
                guidance_scale=self._guidance(fields),
            ),
            request_class_size=size,
            request_class_steps=steps,
        )

    def _size(self, fields: dict[str, Any]) -> tuple[int, int] | None:
        value = fields.get("size")
        if value is None or value == "auto":
            return None
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            _refuse("size", "size must look like '512x512': width x height in pixels")
        width, height = int(match[1]), int(match[2])
        self.check_size(width, height)
        return width, height

    def check_size(self, width: int, height: int) -> None:
        """Check that the model can make pictures of a size and that the limits allow it.

        Raises
        ------
        RequestRefusedError
            As :meth:`check` does.
        """
        multiple, longest = self.engine.size_multiple, self.engine.max_side
        if any(side % multiple or not _LEAST_SIDE <= side <= longest for side in (width, height)):
            _refuse(
                "size",
                f"width and height must be multiples of {multiple} from {_LEAST_SIDE} to {longest}",
            )
        if width * height > self.limits.max_pixels:
            _refuse("size", f"width times height must not exceed {self.limits.max_pixels} pixels")

    def _guidance(self, fields: dict[str, Any]) -> float:
        value = fields.get("guidance_scale")
        if value is None:
            return self.defaults.guidance_scale
        most = self.limits.max_guidance_scale
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= most or not math.isfinite(value):
            _refuse("guidance_scale", f"guidance_scale must be a number from 0 to {most:g}")
        return float(value)

    def _negative_prompt(self, fields: dict[str, Any]) -> str | None:
        text = _text(fields, "negative_prompt", self.limits.max_prompt_characters)
        if text is not None and not self.engine.takes_negative_prompt:
            _refuse("negative_prompt", "this model takes no negative_prompt; leave it out")
        return text
