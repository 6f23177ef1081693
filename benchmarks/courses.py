"""One simulated trial as the operator sees it: moments of each class in each look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.traffic import Traffic
from modelrollout.gates.blocks import LOG_SECONDS, Blocks
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.load import MOST_TIMES_BUSIER, times_busier
from modelrollout.gates.sequential import (
    FEWEST_REQUESTS,
    Verdict,
    log_information,
    log_latency,
)
from modelrollout.gates.totals import LogMoments, Totals

__all__ = ["STABLE_PODS", "Course", "End", "Margins", "courses", "judge"]

Floats = NDArray[np.float64]
STABLE_PODS: Final = 4
"""Beside the one of the candidate: at a share of a fifth all pods get as many requests."""

Stratum = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Margins:
    """What the relative gate is asked for."""

    fail: float = 1.10
    passing: float = 1.25
    alpha: float = 0.05


class End(NamedTuple):
    """How a trial ended."""

    verdict: Verdict
    n: int
    """Requests of the candidate by then."""


@dataclass(frozen=True, slots=True)
class Course:
    """A trial of one candidate, from its first request on."""

    candidate: Floats
    """Seconds of the candidate's requests, in order."""

    stable: Floats
    """Seconds of stable's requests, in order."""

    looks: NDArray[np.int64]
    """Requests of the candidate and of stable at the end of each tick that brought new ones."""

    moments: Floats
    """Of the log seconds: looks by classes by arms (candidate, stable) by (count, sum, squares)."""

    names: tuple[str, ...]
    """Of the classes."""

    def comparison(self, look: int) -> Comparison:
        """Return what both arms did since the first request, as the counters of both say it."""
        moments = self.moments[look].tolist()
        arms = (
            {
                name: LogMoments(int(arm[of][0]), arm[of][1], arm[of][2])
                for name, arm in zip(self.names, moments, strict=True)
            }
            for of in (0, 1)
        )
        candidate, stable = (_totals(arm) for arm in arms)
        return Comparison(candidate, stable, stable_pods=STABLE_PODS)

    def until(self, n_max: int) -> Iterator[int]:
        """Yield the looks in which the engine may decide: from 30 requests to the planned end."""
        first = int(np.searchsorted(self.looks[:, 0], FEWEST_REQUESTS))
        for look in range(first, len(self.looks)):
            yield look
            if self.looks[look, 0] >= n_max:
                return


def courses(traffic: Traffic, log_slowdown: float, *, pooled: bool = False) -> Iterator[Course]:
    """Yield the runs of a traffic in which the candidate is slower by a factor.

    Parameters
    ----------
    traffic
        Requests as stable would answer them.
    log_slowdown
        Logarithm of the factor.
    pooled
        Whether the classes are not told apart.
    """
    log_seconds = traffic.log_seconds + log_slowdown * traffic.candidate
    for run in range(len(log_seconds)):
        yield _course(
            traffic.tick[run],
            np.zeros_like(traffic.request_class[run]) if pooled else traffic.request_class[run],
            log_seconds[run],
            traffic.candidate[run],
            1 if pooled else traffic.classes,
        )


def judge(
    course: Course, horizons: Sequence[int], margins: Margins, *, corrected: bool = True
) -> list[End]:
    """Ask the engine in each look, for each planned end, until it decides or requests are used up.

    Parameters
    ----------
    course
        The trial.
    horizons
        Planned numbers of requests of the candidate, ascending.
    margins
        What is asked.
    corrected
        Whether the design effect is estimated from blocks of requests, as the operator does; else
        requests are taken to be independent.
    """
    ends: list[End | None] = [None] * len(horizons)
    blocks = Blocks()
    for look, (n, _) in enumerate(course.looks.tolist()):
        comparison = course.comparison(look)
        if corrected:
            blocks = blocks.add(comparison.candidate, comparison, ())
        if n < FEWEST_REQUESTS:
            continue
        effect = blocks.design_effects(comparison.candidate, comparison, ())[LOG_SECONDS]
        strata = [
            _stratum(moments, comparison.stable.log_moments[name])
            for name, moments in comparison.candidate.log_moments.items()
            if moments.count and comparison.stable.log_moments[name].count
        ]
        information = log_information(strata, design_effect=effect)
        for at, n_max in enumerate(horizons):
            if ends[at] is None:
                verdict = log_latency(
                    strata,
                    margin_fail=margins.fail,
                    margin_pass=margins.passing,
                    information_max=information * max(1.0, n_max / n),
                    alpha=margins.alpha,
                    design_effect=effect,
                ).verdict
                if verdict is Verdict.PASS and times_busier(comparison) > MOST_TIMES_BUSIER:
                    verdict = Verdict.INCONCLUSIVE
                if verdict in _FINAL:
                    ends[at] = End(verdict, n)
                elif n >= n_max:
                    ends[at] = End(Verdict.INCONCLUSIVE, n)
        if None not in ends:
            break
    return [end or End(Verdict.INCONCLUSIVE, int(course.looks[-1, 0])) for end in ends]


_FINAL: Final = frozenset({Verdict.PASS, Verdict.FAIL})
_NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _totals(moments: dict[str, LogMoments]) -> Totals:
    """Return counters of requests of which only the log moments matter."""
    n = sum(item.count for item in moments.values())
    return Totals(
        pod="pod",
        time=_NOON,
        succeeded=n,
        failed=0,
        images=n,
        measured=n,
        gpu_seconds=0.0,
        gpu_seconds_squares=0.0,
        busy_seconds=0.0,
        timed=n,
        within={},
        out_of_memory=0,
        log_moments=moments,
    )


def _stratum(candidate: LogMoments, stable: LogMoments) -> Stratum:
    return (
        candidate.count,
        candidate.mean,
        candidate.squared_deviations,
        stable.count,
        stable.mean,
        stable.squared_deviations,
    )


def _course(
    tick: NDArray[np.int64],
    classes: NDArray[np.int64],
    log_seconds: Floats,
    candidate: NDArray[np.bool_],
    class_count: int,
) -> Course:
    ends = np.flatnonzero(np.append(tick[1:] != tick[:-1], True))
    seconds = np.exp(log_seconds)
    n_c = np.cumsum(candidate)[ends]
    moments = np.empty((len(ends), class_count, 2, 3))
    powers = np.stack([np.ones_like(log_seconds), log_seconds, log_seconds**2], axis=1)
    for index in range(class_count):
        member = classes == index
        for arm, mine in enumerate((member & candidate, member & ~candidate)):
            moments[:, index, arm] = np.cumsum(powers * mine[:, None], axis=0)[ends]
    return Course(
        candidate=seconds[candidate],
        stable=seconds[~candidate],
        looks=np.stack([n_c, ends + 1 - n_c], axis=1),
        moments=moments,
        names=tuple(f"class {index}" for index in range(class_count)),
    )
