"""The usual judges, written from their documented semantics, on raw measurements.

Each is given the best case: exact quantiles of all requests of a window (a histogram would add
its interpolation), no stale samples, and windows that do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = [
    "AnalysisRun",
    "FlaggerLoop",
    "Measurement",
    "Outcome",
    "RankJudge",
    "quantile_ratio",
    "sorted_quantile",
]

Floats = NDArray[np.float64]


class Outcome(StrEnum):
    """What a judge has decided."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"
    PAUSED = "Paused"
    """Left to a person."""


class Measurement(StrEnum):
    """What one query brought that is no number."""

    ERROR = "error"
    """The query failed, or its answer was empty."""


Value = float | Measurement


@dataclass(slots=True)
class FlaggerLoop:
    """Flagger's loop at a fixed share of traffic (`iterations`).

    A check in each interval. Whatever is not a number within the range is a failed check: too
    large, NaN, no series, an unreachable Prometheus. Failed checks are counted over the whole
    analysis, and good ones do not take any back; the analysis fails when the count reaches the
    threshold, and has passed after so many good checks.
    """

    maximum: float
    iterations: int = 10
    threshold: int = 1
    """Failed checks at which it is rolled back; 1 unless declared."""

    good: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def check(self, value: Value) -> Outcome:
        """Take the measurement of one interval."""
        if isinstance(value, float) and value <= self.maximum:
            self.good += 1
        else:
            self.failed += 1
        if self.failed >= self.threshold:
            return Outcome.FAILED
        return Outcome.PASSED if self.good >= self.iterations else Outcome.RUNNING


@dataclass(slots=True)
class AnalysisRun:
    """One metric of an AnalysisRun of Argo Rollouts.

    A measurement is Successful or Failed by its conditions; with both declared and neither true
    it is Inconclusive; one that cannot be evaluated is an Error. More than so many of a kind end
    the run: failures in all, inconclusive ones in all, errors in a row. Errors do not count
    towards `count`, the measurements after which the metric was successful.
    """

    success_below: float | None = None
    """Successful when the value is at most this."""

    failure_above: float | None = None
    """Failed when the value is more than this."""

    count: int = 10
    failure_limit: int = 0
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    taken: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    inconclusive: int = field(default=0, init=False)
    errors: int = field(default=0, init=False)

    def measure(self, value: Value) -> Outcome:
        """Take one measurement."""
        if isinstance(value, Measurement):
            self.errors += 1
            over = self.errors > self.consecutive_error_limit
            return Outcome.FAILED if over else Outcome.RUNNING
        self.errors = 0
        self.taken += 1
        good = self._succeeds(value)
        if good is None:
            self.inconclusive += 1
        elif not good:
            self.failures += 1
        if self.inconclusive > self.inconclusive_limit:
            return Outcome.PAUSED
        if self.failures > self.failure_limit:
            return Outcome.FAILED
        return Outcome.PASSED if self.taken >= self.count else Outcome.RUNNING

    def _succeeds(self, value: float) -> bool | None:
        """Tell whether the measurement is a success; None when neither condition is true."""
        if self.success_below is not None and value <= self.success_below:
            return True
        if self.failure_above is not None and value > self.failure_above:
            return False
        if self.success_below is not None and self.failure_above is not None:
            return None
        return self.success_below is None


@dataclass(frozen=True, slots=True)
class RankJudge:
    """Kayenta's judge of one metric that should not increase.

    A rank-sum interval for the shift between the arms, at 98 %. The candidate is High when the
    lower end is above a tolerance, a quarter of the estimated shift, and the ratio of means is at
    least the allowed increase. Identical samples pass.
    """

    confidence: float = 0.98
    tolerance: float = 0.25
    allowed_increase: float = 1.10

    def high(self, candidate: Floats, stable: Floats) -> bool:
        """Tell whether the candidate is judged to be too high."""
        if candidate.size == 0 or stable.size == 0:
            return False
        if candidate.mean() < self.allowed_increase * stable.mean():
            return False
        low, shift = self.shift(candidate, stable)
        return low > self.tolerance * abs(shift)

    def shift(self, candidate: Floats, stable: Floats) -> tuple[float, float]:
        """Return the lower end of the interval for the shift, and the Hodges-Lehmann estimate."""
        differences = np.subtract.outer(candidate, stable).ravel()
        n, m = candidate.size, stable.size
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        below = math.floor(n * m / 2 + ndtri((1 - self.confidence) / 2) * spread - 0.5)
        middle = n * m // 2
        if below < 0:
            return -math.inf, float(np.median(differences))
        differences.partition([below, middle])
        return float(differences[below]), float(differences[middle])


def quantile_ratio(candidate: Floats, stable: Floats, quantile: float) -> float:
    """Return the ratio of a quantile of both arms; NaN when an arm has no requests."""
    if candidate.size == 0 or stable.size == 0:
        return math.nan
    return sorted_quantile(sorted(candidate.tolist()), quantile) / sorted_quantile(
        sorted(stable.tolist()), quantile
    )


def sorted_quantile(values: list[float], quantile: float) -> float:
    """Return a quantile of ascending values, with linear interpolation."""
    place = quantile * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])
