"""The outcome of a test."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelrollout.gates.verdict import Verdict

__all__ = ["Judgement", "invalid", "is_level", "is_number"]


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
    """Further observations until Pass if all are good; None where that is not known."""

    message: str


def invalid(reason: str, message: str, limit: float, *, needed: int | None = None) -> Judgement:
    """Return that there is nothing to judge, and why."""
    return Judgement(Verdict.INVALID, reason, None, None, None, None, limit, needed, message)


def is_level(*alphas: float) -> bool:
    """Tell whether all numbers can be probabilities of an error."""
    return all(0 < alpha < 1 for alpha in alphas)


def is_number(*values: float) -> bool:
    """Tell whether all values are finite numbers."""
    try:
        return all(math.isfinite(value) for value in values)
    except (OverflowError, TypeError):
        return False
