"""One simulated trial as the operator sees it: moments of each class in each look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.traffic import Traffic
from modelrollout.gates.sequential import (
    FEWEST_REQUESTS,
    Verdict,
    log_information,
    log_latency,
)

__all__ = ["Course", "End", "Margins", "courses", "judge"]

Floats = NDArray[np.float64]
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

    def strata(self, look: int) -> list[Stratum]:
        """Return what `log_latency` is given in a look, as the counters of both servers say it."""
        found: list[Stratum] = []
        for arms in self.moments[look].tolist():
            (n_c, sum_c, squares_c), (n_s, sum_s, squares_s) = arms
            if n_c and n_s:
                found.append((*_centred(n_c, sum_c, squares_c), *_centred(n_s, sum_s, squares_s)))
        return found

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


def judge(course: Course, n_max: int, margins: Margins, *, design_effect: float = 1.0) -> End:
    """Ask the engine in each look until it decides or the requests are used up."""
    n = 0
    for look in course.until(n_max):
        n = int(course.looks[look, 0])
        strata = course.strata(look)
        planned = log_information(strata, design_effect=design_effect) * n_max / n
        judgement = log_latency(
            strata,
            margin_fail=margins.fail,
            margin_pass=margins.passing,
            information_max=planned,
            alpha=margins.alpha,
            design_effect=design_effect,
        )
        if judgement.verdict in _FINAL:
            return End(judgement.verdict, n)
    return End(Verdict.INCONCLUSIVE, n)


_FINAL: Final = frozenset({Verdict.PASS, Verdict.FAIL})


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
    )


def _centred(count: float, total: float, squares: float) -> tuple[float, float, float]:
    mean = total / count
    return count, mean, max(0.0, squares - count * mean**2)
