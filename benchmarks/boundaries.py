"""Stopping boundaries as the engine draws them, found by asking it.

A verdict on a share depends on two counts, one on a shift with known variance on one number: so
the boundary of each look is found once by halving, and simulated courses are compared with it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelrollout.gates.sequential import Verdict, log_latency, proportion

__all__ = ["decide_shares", "first_crossing", "score_line", "share_boundaries"]

_MARGIN: Final = 1.10
_FAR: Final = 64.0
"""In standard deviations of one difference: every line is crossed below."""

_HALVINGS: Final = 50


@lru_cache(maxsize=32)
def share_boundaries(
    limit: float, most: int, alpha_pass: float, alpha_fail: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for 0 to `most` requests, the most bad ones that pass and the fewest that fail.

    -1 where none passes, one more than there are requests where none fails.
    """
    passing, failing = [-1], [1]
    for n in range(1, most + 1):
        verdicts = partial(
            _share_verdict, n=n, limit=limit, alpha_pass=alpha_pass, alpha_fail=alpha_fail
        )
        passing.append(_first_without(Verdict.PASS, verdicts, n) - 1)
        failing.append(_first_with(Verdict.FAIL, verdicts, n))
    return np.array(passing), np.array(failing)


def decide_shares(
    bad: NDArray[np.bool_], passing: NDArray[np.int64], failing: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each course (rows) after how many requests it passed and failed; 0 for never.

    Whatever comes first ends the course.
    """
    count = np.cumsum(bad, axis=1)
    n = bad.shape[1]
    passed = first_crossing(count <= passing[1 : n + 1])
    failed = first_crossing(count >= failing[1 : n + 1])
    both = (passed > 0) & (failed > 0)
    return (
        np.where(both & (failed < passed), 0, passed),
        np.where(both & (passed < failed), 0, failed),
    )


@lru_cache(maxsize=8)
def score_line(pairs: int, planned: int, alpha: float) -> NDArray[np.float64]:
    """Return the sum of differences from which the engine fails, after 1 to `pairs` pairs.

    Of pairs of independent values with a standard deviation of 1 that is known: the variance
    within both arms is made to be 1 in each look. Infinite where it does not decide.
    """
    log_margin = math.log(_MARGIN)

    def fails(n: int, mean: float) -> bool:
        known = float(n - 1)
        judgement = log_latency(
            [(n, log_margin + mean, known, n, 0.0, known)],
            margin_fail=_MARGIN,
            margin_pass=2 * _MARGIN,
            information_max=planned / 2,
            alpha=alpha,
        )
        return judgement.verdict == Verdict.FAIL

    line = []
    for n in range(1, pairs + 1):
        low, high = 0.0, _FAR
        if not fails(n, high):
            line.append(math.inf)
            continue
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if fails(n, middle) else (middle, high)
        line.append(n * high)
    return np.array(line)


def first_crossing(crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return after how many requests each course (rows) first crossed; 0 for never."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, 0).astype(np.int64)


def _share_verdict(k: int, n: int, limit: float, alpha_pass: float, alpha_fail: float) -> Verdict:
    return proportion(k, n, limit, alpha_pass=alpha_pass, alpha_fail=alpha_fail).verdict


def _first_with(wanted: Verdict, verdicts: Callable[[int], Verdict], n: int) -> int:
    return bisect_left(range(n + 1), x=True, key=lambda k: verdicts(k) == wanted)


def _first_without(wanted: Verdict, verdicts: Callable[[int], Verdict], n: int) -> int:
    return bisect_left(range(n + 1), x=True, key=lambda k: verdicts(k) != wanted)
