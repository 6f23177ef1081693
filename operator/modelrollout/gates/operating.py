"""Operating characteristics: how a test ends for a candidate of which the truth is known.

What a limit, a number of requests and a confidence mean together is seen in them: how often a
candidate of a given share of bad requests passes, fails or ends undecided, and after how many
requests. They are computed from the tests' own stopping boundaries, not simulated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from modelrollout.gates import special
from modelrollout.gates.sequential import proportion
from modelrollout.gates.verdict import Verdict

__all__ = ["Operating", "ShareTest", "line_crossing", "share_operating"]

_EVERY_REQUEST: Final = 100
"""Up to this many requests there is a look after each. At one request a second, an operator that
looks once a scrape sees fewer courses than that."""

_GROWTH: Final = 1 / 64
"""Beyond, each look has so much more requests than the one before. Courses that are beyond a
boundary between two looks only are missed; an operator that looks once a scrape misses some too."""

_DEVIATIONS: Final = 8.5
"""Standard deviations of a binomial distribution beyond which nothing is left of it."""

_FAILING: Final = frozenset({Verdict.FAIL})
_NOT_PASSING: Final = frozenset(Verdict) - {Verdict.PASS}


@dataclass(frozen=True, slots=True)
class ShareTest:
    """A gate on the share of bad requests (`sequential.proportion`) and when it is asked."""

    limit: float
    """Largest share of bad requests that is allowed, between 0 and 1."""

    alpha_pass: float
    alpha_fail: float
    min_requests: int
    """It does not pass before."""

    max_requests: int
    """It is undecided if it has neither passed nor failed by then."""

    def verdict(self, k: int, n: int) -> Verdict:
        """Return the verdict on `k` bad ones of `n` requests, whatever the declared numbers."""
        return proportion(
            k, n, self.limit, alpha_pass=self.alpha_pass, alpha_fail=self.alpha_fail
        ).verdict


@dataclass(frozen=True, slots=True)
class Operating:
    """How a test ends. The three probabilities add up to 1."""

    passes: float
    fails: float
    undecided: float
    requests_to_pass: int | None
    """Median, of the courses that pass; None when none does."""

    requests_to_fail: int | None
    """Median, of the courses that fail; None when none does."""

    requests_to_end: int | None
    """Median, of all courses; None when most of them end undecided."""


def share_operating(test: ShareTest, share: float) -> Operating:
    """Return how a gate on a share ends when each request is bad with the same probability.

    The distribution of the number of bad requests among all courses that go on is carried from
    look to look; what is beyond a boundary is taken out. Up to 100 requests there is a look after
    each, and the result is exact. Beyond, looks are 1.6 % apart, so that a million requests take
    about 600 more: what is lost is under .02 of the power.

    Parameters
    ----------
    test
        The gate.
    share
        The true share of bad requests, from 0 to 1.

    Raises
    ------
    ValueError
        When `share` is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share")
    going_on = np.ones(1)
    fewest, before = 0, 0
    passed: list[tuple[int, float]] = []
    failed: list[tuple[int, float]] = []
    for look in _looks(test):
        lowest, added = _binomial(look.n - before, share)
        going_on = np.convolve(going_on, added)
        fewest, before = fewest + lowest, look.n
        first = max(0, look.passing + 1 - fewest)
        last = max(first, look.failing - fewest)
        passed.append((look.n, float(going_on[:first].sum())))
        failed.append((look.n, float(going_on[last:].sum())))
        going_on = going_on[first:last]
        fewest += first
        if not going_on.size:
            break
    return Operating(
        passes=_total(passed),
        fails=_total(failed),
        undecided=min(1.0, float(going_on.sum())),
        requests_to_pass=_median(passed, _total(passed)),
        requests_to_fail=_median(failed, _total(failed)),
        requests_to_end=_median(sorted(passed + failed), 1.0),
    )


def line_crossing(drift: float, line: float) -> float:
    """Return the probability that a score ever crosses its stopping line.

    The score behaves as Brownian motion with a drift, the line is constant, and the time is the
    planned information (Bachelier-Levy formula).

    Parameters
    ----------
    drift
        Expected score at the planned end, in standard deviations of the score at that time.
    line
        Height of the line in the same, above 0.
    """
    reflected = 2 * drift * line + float(special.log_ndtr(-line - drift))
    return min(1.0, float(special.ndtr(drift - line)) + math.exp(reflected))


@dataclass(frozen=True, slots=True)
class _Look:
    n: int
    passing: int
    """Most bad requests at which it passes; -1 where it cannot."""

    failing: int
    """Fewest bad requests at which it fails; `n` + 1 where it cannot."""


@lru_cache(maxsize=64)
def _looks(test: ShareTest) -> tuple[_Look, ...]:
    """Return the stopping boundaries."""
    asked = {*_looked_at(test.max_requests), test.min_requests}
    looks = sorted(n for n in asked if 0 < n <= test.max_requests)
    failing = _boundary(test, looks, _FAILING)
    passing = _boundary(test, looks, _NOT_PASSING)
    return tuple(
        _Look(n, most - 1 if n >= test.min_requests else -1, fewest)
        for n, most, fewest in zip(looks, passing, failing, strict=True)
    )


def _boundary(test: ShareTest, looks: Sequence[int], verdicts: frozenset[Verdict]) -> list[int]:
    """Return the fewest bad requests at each look that get one of these verdicts.

    All more then get one; where none does, it is one more than there are requests. With more
    requests a boundary never falls. So between two looks at which it is the same nothing needs to
    be asked, and elsewhere it is close to the straight line from one look to the other.
    """
    if not looks:
        return []
    found = [0] * len(looks)
    for at in (0, len(looks) - 1):
        n = looks[at]
        found[at] = _fewest(test, n, range(n + 1), n * test.limit, verdicts)
    halves = [(0, len(looks) - 1)]
    while halves:
        first, last = halves.pop()
        if last - first < 2:  # noqa: PLR2004 - nothing in between
            continue
        low, high = found[first], found[last]
        if low == high:
            found[first : last + 1] = [low] * (last - first + 1)
            continue
        middle = (first + last) // 2
        n, begin, end = looks[middle], looks[first], looks[last]
        guess = low + (high - low) * (n - begin) / (end - begin)
        found[middle] = _fewest(test, n, range(low, min(high, n + 1)), guess, verdicts)
        halves += [(first, middle), (middle, last)]
    return found


def _fewest(
    test: ShareTest, n: int, counts: range, guess: float, verdicts: frozenset[Verdict]
) -> int:
    """Return the first of these counts of bad ones of `n` that gets one of the verdicts.

    All further ones get one too; it is the end of the range if none does. It is looked for in
    growing steps from a guess.
    """

    def gets_one(k: int) -> bool:
        return test.verdict(k, n) in verdicts

    low, high = counts.start, counts.stop
    at, step = max(low, min(high - 1, round(guess))), 1
    while low <= at < high:
        if gets_one(at):
            high, at = at, at - step
        else:
            low, at = at + 1, at + step
        step *= 2
    between = range(low, high)
    return low + bisect_left(between, True, key=gets_one)


def _looked_at(most: int) -> Iterator[int]:
    n = 0
    while n < most:
        n = min(most, max(n + 1, int(n * (1 + _GROWTH))) if n >= _EVERY_REQUEST else n + 1)
        yield n


@lru_cache(maxsize=256)
def _binomial(n: int, share: float) -> tuple[int, NDArray[np.float64]]:
    """Return the lowest number of bad ones of `n` that has a chance, and the chances from it on."""
    if n == 1:
        return 0, np.array([1 - share, share])
    reach = _DEVIATIONS * math.sqrt(n * share * (1 - share)) + _DEVIATIONS**2
    lowest, highest = max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach))
    k = np.arange(lowest, highest + 1)
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return lowest, np.exp(ways + special.xlogy(k, share) + special.xlog1py(n - k, -share))


def _total(ended: list[tuple[int, float]]) -> float:
    return min(1.0, math.fsum(chance for _, chance in ended))


def _median(ended: list[tuple[int, float]], of: float) -> int | None:
    """Return the number of requests by which half of the courses have ended."""
    so_far = 0.0
    for n, chance in ended:
        so_far += chance
        if so_far >= of / 2 > 0:
            return n
    return None
