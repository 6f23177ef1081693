"""What the synthetic engine is declared to do: the truth that a gate has to find."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from imagegen.contract import OomPhase

__all__ = ["SyntheticRates"]

_SHARES = (
    "out_of_memory_rate",
    "failure_rate",
    "blank_rate",
    "misspelling_rate",
    "instability_rate",
)
_PHASES = (OomPhase.ENCODE, OomPhase.DENOISE, OomPhase.DECODE)


@dataclass(frozen=True)
class SyntheticRates:
    """Declared behaviour; with all defaults the engine is fast, reliable and spells well.

    Attributes
    ----------
    seed
        Of all that is drawn per call. What is drawn per picture comes from its own seed and prompt.
    base_seconds, seconds_per_megapixel_step
        Median time of a call: the first, and the second times the megapixels of all its pictures
        times its steps.
    latency_log_deviation
        Standard deviation of the logarithm of a call's time around that.
    out_of_memory_rate, out_of_memory_phase
        Share of calls that run out of memory, and where.
    fits_megapixels
        A call with more than this in all its pictures always runs out of memory; None: all fit.
    failure_rate
        Share of calls that fail for another reason.
    blank_rate
        Share of pictures that are blank.
    misspelling_rate
        Share of pictures, by seed and prompt, whose quoted text has one wrong letter. Those of a
        lower rate are among those of a higher one.
    instability_rate
        Share of pictures that are not what their seed and prompt gave before.
    drift_pixels
        How far to the right everything is drawn: another checkpoint.
    """

    seed: int = 0
    base_seconds: float = 0.0
    seconds_per_megapixel_step: float = 0.0
    latency_log_deviation: float = 0.0
    out_of_memory_rate: float = 0.0
    out_of_memory_phase: OomPhase = OomPhase.DENOISE
    fits_megapixels: float | None = None
    failure_rate: float = 0.0
    blank_rate: float = 0.0
    misspelling_rate: float = 0.0
    instability_rate: float = 0.0
    drift_pixels: int = 0

    @classmethod
    def read(cls, text: str) -> SyntheticRates:
        """Read a JSON object with some of the attributes, or the path of a file that holds one.

        Raises
        ------
        ValueError
            With the attribute and what is allowed in it.
        """
        try:
            content = json.loads(
                text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
            )
        except OSError as error:
            raise ValueError(f"{text} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"the rates are not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError("the rates must be a JSON object")  # noqa: TRY004 - a user's mistake
        return cls(**{name: _checked(name, value) for name, value in content.items()})


def _checked(name: str, value: Any) -> Any:
    known = [field.name for field in fields(SyntheticRates)]
    if name not in known:
        raise ValueError(f"{name!r} is no rate; known: {', '.join(known)}")
    if name == "out_of_memory_phase":
        if value not in _PHASES:
            raise ValueError(f"{name} must be one of {', '.join(_PHASES)}")
        return OomPhase(value)
    if name in {"seed", "drift_pixels"}:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number")
        return value
    most = 1.0 if name in _SHARES else math.inf
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or not math.isfinite(value):
        raise ValueError(
            f"{name} must be a number {'from 0 to 1' if most == 1 else 'of 0 or more'}"
        )
    return float(value)
