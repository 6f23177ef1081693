"""Counters of server pods, and what happened between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from modelrollout.api.conditions import format_precise_time, parse_time
from modelrollout.api.status import CounterBaseline, EdgeCount
from modelrollout.errors import RolloutError

__all__ = ["LARGEST_COUNT", "Incomparable", "LogMoments", "Totals", "is_count"]

LARGEST_COUNT: Final = 2**53
"""Beyond it a Prometheus sample, a 64-bit float, no longer counts in steps of one."""

_LARGEST_AMOUNT: Final = 1e60
"""Sums beyond it are no seconds; products of numbers below it are finite."""

_COUNTS: Final = ("succeeded", "failed", "images", "measured", "timed", "out_of_memory")
_AMOUNTS: Final = ("gpu_seconds", "gpu_seconds_squares", "busy_seconds")


_Number = TypeVar("_Number", int, float)


def is_count(value: float) -> bool:
    """Tell whether a number can be the value of something counted."""
    return 0 <= value <= LARGEST_COUNT and value == int(value)


class Incomparable(RolloutError):
    """Two sets of counters have no meaningful difference.

    Its reason is ``PodChanged``, ``CounterReset`` or ``NotACounter``.
    """


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


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative counters of one server pod.

    Also the difference of two such sets: what happened between two moments.
    """

    pod: str
    """Name of the pod."""

    time: datetime
    """The moment at which Prometheus was asked."""

    succeeded: int
    """Requests answered with images."""

    failed: int
    """Requests that failed by the server's fault (`imagegen.contract.FAULT_OUTCOMES`: timeout, out
    of memory, watchdog, error). A request refused as `busy` is none of them: how many are refused
    depends on the load that was sent, and a server too slow for it shows as latency, because the
    wait in the queue is part of it."""

    images: int
    """Images delivered."""

    measured: int
    """Requests in `gpu_seconds` and `gpu_seconds_squares`."""

    gpu_seconds: float
    """Sum over served requests of the time in which the GPU was busy for them, in seconds."""

    gpu_seconds_squares: float
    """Sum of the squares of the same, in square seconds."""

    busy_seconds: float
    """Time in which the GPU was busy, failed attempts included."""

    timed: int
    """Requests of which the latency is known."""

    within: Mapping[int, int]
    """Requests that took at most so many milliseconds, for each edge of the histogram."""

    out_of_memory: int
    """Times the server ran out of memory, since the pod began."""

    log_moments: Mapping[str, LogMoments] = field(default_factory=dict)
    """Moments of log latency by request class; classes without requests may be absent."""

    peak_memory_share: float | None = None
    """Largest share of the device's memory that was ever in use, from 0 to 1; None where the
    server reports no device memory. No counter: a difference of totals has the later one's."""

    def since(self, baseline: Totals) -> Totals:
        """Return what happened after an earlier moment.

        Only edges that both sets have are in the result.

        Raises
        ------
        Incomparable
            When the sets are of different pods, a counter went backwards, or is no number.
        """
        if self.pod != baseline.pod:
            raise Incomparable(
                "PodChanged", f"the evidence began on pod {baseline.pod}, now it is {self.pod}"
            )
        self.check()
        baseline.check()
        changes: dict[str, Any] = {
            name: self._grown(name, getattr(baseline, name), getattr(self, name))
            for name in (*_COUNTS, *_AMOUNTS)
        }
        changes["within"] = {
            edge: self._grown(f"within {edge} ms", baseline.within[edge], count)
            for edge, count in self.within.items()
            if edge in baseline.within
        }
        return replace(self, **changes)

    def check(self) -> None:
        """Make sure that all counters are numbers that a counter can have.

        Raises
        ------
        Incomparable
            When one is negative, infinite, not a number, or a count is not whole.
        """
        for name in _COUNTS:
            self._check(name, getattr(self, name), whole=True)
        for name in _AMOUNTS:
            self._check(name, getattr(self, name), whole=False)
        for edge, count in self.within.items():
            self._check(f"within {edge} ms", count, whole=True)

    def to_baseline(self, edges: Iterable[int]) -> CounterBaseline:
        """Return the form kept in status, with the named edges (in milliseconds) only.

        Memory events are not part of it: they count from the beginning of the pod, which is the
        beginning of its attempt.
        """
        return CounterBaseline(
            pod=self.pod,
            time=format_precise_time(self.time),
            succeeded=self.succeeded,
            failed=self.failed,
            images=self.images,
            measured=self.measured,
            gpu_seconds=repr(self.gpu_seconds),
            gpu_seconds_squares=repr(self.gpu_seconds_squares),
            busy_seconds=repr(self.busy_seconds),
            timed=self.timed,
            within=[
                EdgeCount(edge_milliseconds=edge, count=self.within[edge])
                for edge in sorted(set(edges))
                if edge in self.within
            ],
        )

    @classmethod
    def from_baseline(cls, baseline: CounterBaseline) -> Totals:
        """Return the counters that were kept in status, memory events as 0.

        Raises
        ------
        ValueError
            When a number in it is not one.
        """
        return cls(
            pod=baseline.pod,
            time=parse_time(baseline.time),
            succeeded=baseline.succeeded,
            failed=baseline.failed,
            images=baseline.images,
            measured=baseline.measured,
            gpu_seconds=float(baseline.gpu_seconds),
            gpu_seconds_squares=float(baseline.gpu_seconds_squares),
            busy_seconds=float(baseline.busy_seconds),
            timed=baseline.timed,
            within={item.edge_milliseconds: item.count for item in baseline.within},
            out_of_memory=0,
        )

    def _grown(self, name: str, before: _Number, now: _Number) -> _Number:
        if now < before:
            raise Incomparable(
                "CounterReset",
                f"the counter '{name}' of pod {self.pod} went back from {before} to {now}: "
                "its process was restarted",
            )
        return now - before

    def _check(self, name: str, value: float, *, whole: bool) -> None:
        usable = is_count(value) if whole else 0 <= value <= _LARGEST_AMOUNT
        if not usable:
            raise Incomparable("NotACounter", f"the counter '{name}' of pod {self.pod} is {value}")
