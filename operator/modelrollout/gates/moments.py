"""Moments of log latency by class of requests, and how many classes are kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["MOST_CLASSES", "OTHER_CLASSES", "LogMoments", "fold", "named_classes"]

MOST_CLASSES: Final = 16
"""Classes of one pod that are kept in status."""

OTHER_CLASSES: Final = "other"
"""The class of all requests whose own class is not kept apart."""

_ROUNDING: Final = 1e-9
"""Relative error that a sum over 10 million requests may have picked up."""

_NEGLIGIBLE: Final = 1e-6
"""Square of a deviation of 0.1 % in latency, which decides nothing. It is more than the rounding
of the difference of two such sums."""


@dataclass(frozen=True, slots=True)
class LogMoments:
    """Moments of the logarithm of latency (natural, of milliseconds) of one class of requests."""

    count: int = 0
    """Served requests of the class."""

    total: float = 0.0
    """Sum of the logarithms."""

    squares: float = 0.0
    """Sum of their squares."""

    @property
    def mean(self) -> float:
        """Mean logarithm; 0 without requests."""
        return self.total / self.count if self.count else 0.0

    @property
    def squared_deviations(self) -> float:
        """Sum of the squared deviations from the mean."""
        return max(0.0, self.squares - self.count * self.mean**2)

    def __add__(self, other: LogMoments) -> LogMoments:
        return LogMoments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def belong_together(self, magnitude: float) -> bool:
        """Tell whether there are numbers that have these moments.

        Parameters
        ----------
        magnitude
            The largest sum of squares that these moments were computed from.
        """
        slack = _ROUNDING * magnitude + _NEGLIGIBLE * (self.count + self.squares)
        if self.count == 0:
            return self.total <= slack and self.squares <= slack
        return self.count * self.mean**2 <= self.squares + slack


def named_classes(*pods: Mapping[str, LogMoments]) -> tuple[str, ...]:
    """Return the classes to be kept apart when these pods are compared.

    All of them, if they are at most `MOST_CLASSES`. Otherwise one less, and `OTHER_CLASSES` for the
    rest: those with the most requests at the first pod come first, then those with the most at the
    other pods together, then by name. A comparison is made in classes that the first pod, the
    candidate's, has requests of.
    """
    names = {name for moments in pods for name in moments}
    if len(names) <= MOST_CLASSES:
        return tuple(sorted(names))

    def rank(name: str) -> tuple[int, int, str]:
        counts = [moments[name].count if name in moments else 0 for moments in pods]
        return -counts[0], -sum(counts[1:]), name

    kept = sorted(names - {OTHER_CLASSES}, key=rank)[: MOST_CLASSES - 1]
    return (*sorted(kept), OTHER_CLASSES)


def fold(moments: Mapping[str, LogMoments], named: Iterable[str]) -> dict[str, LogMoments]:
    """Return the moments with what has no named class in `OTHER_CLASSES`, if that is named.

    Pods that are compared are folded alike: a class is then either apart in all of them or in
    none, also one that had no requests when the comparison began.
    """
    wanted = set(named)
    if OTHER_CLASSES not in wanted:
        return dict(moments)
    folded = {name: moments.get(name, LogMoments()) for name in wanted}
    # In the order of names, because the rounding of a sum depends on its order.
    for name in sorted(set(moments) - wanted):
        folded[OTHER_CLASSES] += moments[name]
    return folded
