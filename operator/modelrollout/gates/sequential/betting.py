"""Bets against what the mean of bounded scores might be at most: the capital that they win.

NumPy is imported here at once. As that takes as long as importing all of this package, this module
is imported where scores are there to be judged, and not before.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Bets", "Scores"]

_STAKES: Final = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
"""Parts of the capital that are bet on a cluster. All of it wins fastest when the scores hardly
differ from each other, little of it when they spread."""

_WEIGHTS: Final = (0.4, 0.12, 0.12, 0.12, 0.12, 0.12)
"""With what part of the capital each stake begins; the first is for scores that are all perfect."""

_BEGUN: Final = tuple(
    (math.log(weight), math.log(stake)) for weight, stake in zip(_WEIGHTS, _STAKES, strict=True)
)

_KEPT: Final = np.array([[1 / stake - 1] for stake in _STAKES[1:]])
"""What is kept beside a stake, in units of it, for all but the first, which keeps nothing."""

_PRECISION: Final = 1e-2
"""Of the last step to a bound, as a part of its distance from the mean, or to a number of
clusters. What is left after a step shrinks with its square."""

_ROUNDING: Final = 1e-9
"""A step of so small a part of a bound may be one of rounding only."""

_MOST_STEPS: Final = 50
"""A bound takes three or four, and with any number of them is on the safe side."""

_LEAST: Final = 1e-150
"""A bound below it is 0. Its square is not."""

_LOG_LEAST: Final = math.log(_LEAST)

_MOST_CLUSTERS: Final = 1e9
_LEAST_GAIN: Final = 1e-3 / _MOST_CLUSTERS
"""With less, the most clusters would not raise the log capital by as much as a thousandth."""

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bets:
    """What was won in bets against "the mean is so much or less"."""

    logs: list[float]
    """Logarithm of the capital of each stake."""

    log_capital: float
    slope: float
    """How the logarithm of all capital changes with that of the limit."""

    def needed(self, gain: float, threshold: float) -> int | None:
        """Return how many further clusters bring the log capital to a threshold, 1 at least.

        Parameters
        ----------
        gain
            By what part of the limit the score of each of them is above it.
        threshold
            The log capital, not reached yet.

        Returns
        -------
        int or None
            None when no number, or none that is of use, does.
        """
        if gain <= _LEAST_GAIN:
            return None
        steps = [math.log1p(stake * gain) for stake in _STAKES]
        # The log capital is convex in their number, so that Newton's steps descend to the number
        # from any one that is enough, such as what the best stake needs alone.
        count = min((threshold - log) / step for log, step in zip(self.logs, steps, strict=True))
        for _ in range(_MOST_STEPS):
            logs = [log + count * step for log, step in zip(self.logs, steps, strict=True)]
            value, slope = _mixed(logs, steps)
            surplus = (value - threshold) / slope
            count -= surplus
            if surplus <= _PRECISION:
                break
        return max(1, math.ceil(count)) if count <= _MOST_CLUSTERS else None


class Scores:
    """Means of clusters, counted from the lowest possible one, and from the highest.

    All that is computed is computed for both sides at once: of so few numbers, a call of NumPy
    costs more than what it computes.

    Parameters
    ----------
    means
        One per cluster, from `lowest` to `highest`.
    lowest, highest
        What the scores are bounded by.
    """

    def __init__(self, means: Sequence[float], lowest: float, highest: float) -> None:
        # In ascending order, because the rounding of a sum depends on it.
        ordered = np.array(means, dtype=np.float64)
        ordered.sort()
        n, mean = len(means), math.fsum(means) / len(means)
        self._n = n
        self._means = (mean - lowest, highest - mean)
        self._values = np.empty((2, 1, n))
        np.subtract(ordered, lowest, out=self._values[0, 0])
        np.subtract(highest, ordered, out=self._values[1, 0])
        self._log_sums = (
            _log_sum(self._values[0, 0], least=self._values[0, 0, 0]),
            _log_sum(self._values[1, 0], least=self._values[1, 0, -1]),
        )
        self._begun = [log + n * log_stake for log, log_stake in _BEGUN]
        # To reserve it anew for each limit takes longer than what is computed in it.
        self._room = np.empty((2, 2, len(_KEPT), n))

    def bets(self, limits: tuple[float, float]) -> tuple[Bets, Bets]:
        """Return what was won against "the mean is the limit or less", on either side.

        A cluster multiplies the capital of a stake ``c`` by ``1 - c + c x / limit``, of which the
        mean is at most 1 when that of ``x`` is at most `limit`.
        """
        kept = _KEPT * np.array(limits).reshape(2, 1, 1)
        sums, logs = self._room
        np.add(kept, self._values, out=sums)
        np.log(sums, out=logs)
        np.divide(kept, sums, out=sums)
        slopes, log_sums = np.add.reduce(self._room, axis=3).tolist()
        first, second = (
            self._bets(limits[side], (self._log_sums[side], *log_sums[side]), slopes[side])
            for side in (0, 1)
        )
        return first, second

    def _bets(self, limit: float, grown: Sequence[float], slopes: Sequence[float]) -> Bets:
        scale = self._n * math.log(limit)
        won = [log + begun - scale for log, begun in zip(grown, self._begun, strict=True)]
        value, slope = _mixed(won, (0.0, *slopes))
        return Bets(won, value, slope - self._n)

    def lower_bounds(self, thresholds: tuple[float, float]) -> tuple[float, float]:
        """Return the largest limits against which the log capitals reach their thresholds.

        The log capital falls with the logarithm of the limit and is convex in it, as each factor
        of each stake is, and as mixing keeps it. So Newton's steps lead from anywhere to below the
        bound, and rise to it from there: they end on the safe side.
        """
        log_limits = [self._begin(side, thresholds[side]) for side in (0, 1)]
        for _ in range(_MOST_STEPS):
            first, second = (max(log, _LOG_LEAST) for log in log_limits)
            near = True
            for side, bets in enumerate(self.bets((math.exp(first), math.exp(second)))):
                if log_limits[side] < _LOG_LEAST:
                    continue
                step = (thresholds[side] - bets.log_capital) / bets.slope
                log_limits[side] += step
                distance = math.log(self._means[side]) - log_limits[side]
                near = near and abs(step) <= max(_ROUNDING, _PRECISION * distance)
            if near:
                break
        first, second = (0.0 if log < _LOG_LEAST else math.exp(log) for log in log_limits)
        return first, second

    def _begin(self, side: int, threshold: float) -> float:
        """Guess a bound: that of a normal mean, and of one that never varies."""
        mean, values = self._means[side], self._values[side, 0]
        if mean <= _LEAST:
            return -math.inf
        relative = max(0.0, float(values @ values) / self._n / mean**2 - 1)
        spread = math.sqrt(2 * threshold * relative / self._n)
        return math.log(mean) - spread - threshold / self._n


def _log_sum(values: _Array, *, least: float) -> float:
    return float(np.log(values).sum()) if least > 0 else -math.inf


def _mixed(logs: Sequence[float], slopes: Sequence[float]) -> tuple[float, float]:
    """Return the logarithm of a sum and its slope, from those of the summands."""
    largest = max(logs)
    parts = [math.exp(log - largest) for log in logs]
    total = sum(parts)
    return largest + math.log(total), sum(map(operator.mul, parts, slopes)) / total
