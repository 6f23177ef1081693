"""Counters of server pods, and what happened between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from modelrollout.api.conditions import format_precise_time, parse_time
from modelrollout.api.status import ClassMoments, CounterBaseline, EdgeCount
from modelrollout.errors import RolloutError
from modelrollout.gates.moments import LogMoments, fold, named_classes
from modelrollout.gates.scalars import plain, shown

__all__ = ["LARGEST_COUNT", "Incomparable", "LogMoments", "Totals", "is_count"]

LARGEST_COUNT: Final = 2**53
"""Beyond it a Prometheus sample, a 64-bit float, no longer counts in steps of one."""

_LARGEST_AMOUNT: Final = 1e60
"""Sums beyond it are no seconds; products of numbers below it are finite."""

_COUNTS: Final = ("succeeded", "failed", "images", "measured", "timed", "out_of_memory", "refused")
_AMOUNTS: Final = ("gpu_seconds", "gpu_seconds_squares", "busy_seconds")


_Number = TypeVar("_Number", int, float)


def is_count(value: object) -> bool:
    """Tell whether a value can be that of something counted."""
    if type(value) is int:  # as nearly all are, and this is asked a hundred times in a look
        return 0 <= value <= LARGEST_COUNT
    number = plain(value)
    return number is not None and 0 <= number <= LARGEST_COUNT and number == int(number)


def _is_amount(value: object) -> bool:
    number = plain(value)
    return number is not None and 0 <= number <= _LARGEST_AMOUNT


class Incomparable(RolloutError):
    """Two sets of counters have no meaningful difference.

    Its reason is ``PodChanged``, ``CounterReset`` or ``NotACounter``.
    """


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
    """Largest share of the device's memory that the server ever reserved, from 0 to 1; None where
    it reports no device memory. No counter: a difference of totals has the later one's."""

    refused: int = 0
    """Requests refused because too many were waiting (`busy`)."""

    @classmethod
    def over(cls, pods: Sequence[Totals]) -> Totals:
        """Return the totals of several pods, one at least, at the same time, taken together.

        Only edges that all of them have are in the result.
        """
        first = pods[0]
        summed: dict[str, Any] = {
            name: sum(getattr(pod, name) for pod in pods) for name in (*_COUNTS, *_AMOUNTS)
        }
        shares = [pod.peak_memory_share for pod in pods if pod.peak_memory_share is not None]
        return replace(
            first,
            **summed,
            pod=", ".join(pod.pod for pod in pods),
            within={
                edge: sum(pod.within[edge] for pod in pods)
                for edge in first.within
                if all(edge in pod.within for pod in pods)
            },
            log_moments={
                name: sum((pod.log_moments.get(name, LogMoments()) for pod in pods), LogMoments())
                for name in sorted({name for pod in pods for name in pod.log_moments})
            },
            peak_memory_share=max(shares, default=None),
        )

    def since(self, baseline: Totals) -> Totals:
        """Return what happened after an earlier moment.

        Only edges that both sets have are in the result, and only classes that had requests
        since. A class that the baseline does not have began at 0, or is among its other ones
        (`modelrollout.gates.moments.fold`).

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
        changes["log_moments"] = self._log_moments_since(baseline)
        return replace(self, **changes)

    def check(self) -> None:
        """Make sure that all counters are numbers that a counter can have.

        Raises
        ------
        Incomparable
            When one is negative, infinite, not a number, a count is not whole, moments are those
            of no numbers, or more memory was in use than there is.
        """
        for name in _COUNTS:
            self._check(name, getattr(self, name), whole=True)
        for name in _AMOUNTS:
            self._check(name, getattr(self, name), whole=False)
        for edge, count in self.within.items():
            self._check(f"within {edge} ms", count, whole=True)
        for name, moments in self.log_moments.items():
            self._check(f"requests of class {name}", moments.count, whole=True)
            for amount in (moments.total, moments.squares):
                self._check(f"log moments of class {name}", amount, whole=False)
            if not moments.belong_together(moments.squares):
                raise Incomparable("NotACounter", self._apart(name, moments))
        share = self.peak_memory_share
        if share is not None and not 0 <= share <= 1:
            raise Incomparable(
                "NotACounter",
                f"pod {self.pod} says that {shown(share)} of its device's memory was in use",
            )

    def to_baseline(
        self, edges: Iterable[int], classes: Sequence[str] | None = None
    ) -> CounterBaseline:
        """Return the form kept in status.

        Parameters
        ----------
        edges
            Edges of the histogram that are kept, in milliseconds.
        classes
            Request classes that are kept apart; by default what `named_classes` names.
        """
        named = named_classes(self.log_moments) if classes is None else classes
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
            out_of_memory=self.out_of_memory,
            refused=self.refused,
            log_moments=[
                ClassMoments(
                    request_class=name,
                    count=moments.count,
                    total=repr(moments.total),
                    squares=repr(moments.squares),
                )
                for name, moments in sorted(fold(self.log_moments, named).items())
            ],
        )

    @classmethod
    def from_baseline(cls, baseline: CounterBaseline) -> Totals:
        """Return the counters that were kept in status.

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
            out_of_memory=baseline.out_of_memory,
            refused=baseline.refused,
            log_moments={
                item.request_class: LogMoments(item.count, float(item.total), float(item.squares))
                for item in baseline.log_moments
            },
        )

    def _log_moments_since(self, baseline: Totals) -> dict[str, LogMoments]:
        now = fold(self.log_moments, baseline.log_moments)
        grown: dict[str, LogMoments] = {}
        for name in sorted({*now, *baseline.log_moments}):
            after = now.get(name, LogMoments())
            before = baseline.log_moments.get(name, LogMoments())
            moments = LogMoments(
                self._grown(f"requests of class {name}", before.count, after.count),
                self._grown(f"log latency of class {name}", before.total, after.total),
                self._grown(f"squares of class {name}", before.squares, after.squares),
            )
            if not moments.belong_together(after.squares):
                raise Incomparable(
                    "CounterReset", f"{self._apart(name, moments)}: its process was restarted"
                )
            if moments.count:
                grown[name] = moments
        return grown

    def _apart(self, name: str, moments: LogMoments) -> str:
        return (
            f"in class {name} pod {self.pod} counted {moments.count} requests with log moments "
            f"{moments.total:.6g} and {moments.squares:.6g}, which no requests have"
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
        usable = is_count(value) if whole else _is_amount(value)
        if not usable:
            raise Incomparable(
                "NotACounter", f"the counter '{name}' of pod {self.pod} is {shown(value)}"
            )
