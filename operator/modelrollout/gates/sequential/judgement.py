"""The outcome of a test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from modelrollout.gates.scalars import is_finite, plain, shown
from modelrollout.gates.verdict import Verdict

__all__ = ["LEAST_LEVEL", "Judgement", "invalid", "is_level", "is_number", "shown"]

LEAST_LEVEL: Final = 2.0**-53
"""Below it a probability is lost beside 1, in 64-bit floats."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of a test.

    Each bound of the interval is one-sided, at the level of the verdict that rests on it: the
    interval lies beyond the limit exactly when the verdict says so, except where the docstring of
    a test says otherwise.
    """

    verdict: Verdict
    reason: str
    """CamelCase word: why the verdict is what it is."""

    n: int | None
    """Number of observations: what they are, the test says."""

    estimate: float | None
    low: float | None
    """Lower confidence bound."""

    high: float | None
    """Upper confidence bound."""

    limit: float
    needed: int | None
    """Further observations until Pass; None where that is not known. Of shares and scores it says
    so if all of them are good, of `log_latency` and of means if they are like those so far."""

    message: str


def invalid(reason: str, message: str, limit: object, *, needed: int | None = None) -> Judgement:
    """Return that there is nothing to judge, and why; a limit that is no number is not told."""
    number = plain(limit) if is_finite(limit) else None
    told = math.nan if number is None else float(number)
    return Judgement(Verdict.INVALID, reason, None, None, None, None, told, needed, message)


def is_level(*alphas: object) -> bool:
    """Tell whether all values can be probabilities of an error, or limits of a share."""
    numbers = [plain(alpha) for alpha in alphas]
    return all(number is not None and LEAST_LEVEL <= number < 1 for number in numbers)


def is_number(*values: object) -> bool:
    """Tell whether all values are numbers that a 64-bit float can hold."""
    return all(is_finite(value) for value in values)
