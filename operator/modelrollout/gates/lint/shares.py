"""Gates on a share of requests: exact figures from their stopping boundaries."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Final

from modelrollout.api.gate_types import ErrorsGate
from modelrollout.gates.lint.outlook import (
    FALSE_ROLLBACK,
    FEWEST_AT_STABLE,
    MOST_REQUESTS,
    UNDECIDED,
    Conditions,
    Outlook,
    how_to_pass,
)
from modelrollout.gates.look import requests_of
from modelrollout.gates.operating import ShareTest, share_operating
from modelrollout.gates.sequential import proportion
from modelrollout.gates.totals import LARGEST_COUNT, Totals

__all__ = ["errors_outlook", "slow_outlook"]

_LONGEST: Final = 3_000
"""Requests over which a gate is followed, so that the lint takes a fraction of a second. A
candidate that is undecided by then is so near the limit that its end is not foretold."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Bad requests among those of stable."""

    bad: int
    requests: int
    at_least: bool = False
    """Whether more may have been bad than are known."""

    @property
    def share(self) -> float:
        return self.bad / self.requests


@dataclass(frozen=True, slots=True)
class _Words:
    bad: str
    """After a number of requests: 'slower than 1700 ms'."""

    each: str
    """After 'if none': 'is slow'."""

    relax: str
    """How the limit is relaxed."""


def slow_outlook(percentile: int, limit: int, conditions: Conditions) -> Outlook:
    """Return what is to be expected of a percentile that must be within `limit` milliseconds."""
    most, stable = (100 - percentile) / 100, conditions.stable
    words = _Words(
        f"slower than {limit} ms",
        "is slow",
        "raise `latency.maxMilliseconds` or lower `latency.percentile`",
    )
    if stable is not None:
        enough = _edge_that_is_kept(most, limit, stable, conditions)
        if enough is not None:
            words = replace(words, relax=f"raise `latency.maxMilliseconds` to {enough}")
    known = None if stable is None else _slow(limit, stable)
    return _share_outlook(most, known, words, conditions)


def errors_outlook(gate: ErrorsGate, conditions: Conditions) -> Outlook:
    """Return what is to be expected of a limit on the share of requests that fail."""
    stable = conditions.stable
    known = None if stable is None else _Known(stable.failed, requests_of(stable))
    words = _Words("failed", "fails", "raise `errors.maxPercent`")
    return _share_outlook(float(gate.max_percent) / 100, known, words, conditions)


def _slow(limit: int, stable: Totals) -> _Known | None:
    """Return stable's slow requests; those beyond its next edge where the limit is none of them."""
    edge = min((edge for edge in stable.within if edge >= limit), default=None)
    requests = stable.timed + stable.failed
    if edge is None or stable.within[edge] > stable.timed or requests < FEWEST_AT_STABLE:
        return None
    return _Known(requests - stable.within[edge], requests, at_least=edge != limit)


def _edge_that_is_kept(
    most: float, limit: int, stable: Totals, conditions: Conditions
) -> int | None:
    """Return the lowest edge above the limit that stable would mostly pass at."""

    def is_kept(edge: int) -> bool:
        known = _slow(edge, stable)
        if known is None:
            return False
        end = share_operating(_test(most, conditions), known.share)
        return end.fails <= FALSE_ROLLBACK and end.undecided <= UNDECIDED

    # The higher the edge, the fewer requests are slower.
    edges = sorted(edge for edge in stable.within if edge > limit)
    first = bisect_left(edges, True, key=is_kept)
    return edges[first] if first < len(edges) else None


def _share_outlook(
    most: float, known: _Known | None, words: _Words, conditions: Conditions
) -> Outlook:
    if not 0 < most < 1:
        return Outlook("needs what no number of requests can show")
    best = _passing_requests(0, most, conditions.alpha_pass)
    text = f"needs {best} requests if none {words.each}"
    if known is None:
        return Outlook(text, best)
    end = share_operating(_test(most, conditions), known.share)
    stable = f"{_percent(known.share)} of {known.requests} {words.bad}, limit {_percent(most)}"
    if known.at_least:
        return Outlook(
            text,
            best,
            p_false_rollback=end.fails,
            stable=f"at least {stable}",
            advice=words.relax,
        )
    # The median where most candidates get there, else what it takes if bad ones come evenly.
    like = end.requests_to_end if end.passes > UNDECIDED else None
    if like is None:
        like = _requests_at(known.share, most, conditions.alpha_pass)
    return Outlook(
        text if like is None else f"{text}, about {like} at stable's share",
        best,
        like,
        end.fails,
        end.undecided if conditions.horizon <= _LONGEST else None,
        stable,
        how_to_pass(like, end.undecided, conditions, relax=words.relax),
    )


def _test(most: float, conditions: Conditions) -> ShareTest:
    return ShareTest(
        most,
        conditions.alpha_pass,
        conditions.alpha_fail,
        conditions.analysis.min_requests,
        min(conditions.horizon, _LONGEST),
    )


def _requests_at(share: float, most: float, alpha: float) -> int | None:
    """Return how many requests pass when bad ones come at this share, evenly.

    What is missing to pass with one more bad request grows with their number at first, then it
    shrinks for good if the share is below the limit: so it is gone from one number of them on.
    """
    if share >= most:
        return None

    def passes(k: int) -> bool:
        return share * _passing_requests(k, most, alpha) <= k + 0.5

    high = 1
    while not passes(high):
        high *= 2
        if high > MOST_REQUESTS * most:
            return None
    needed = _passing_requests(bisect_left(range(high), True, key=passes), most, alpha)
    return needed if needed <= MOST_REQUESTS else None


def _passing_requests(bad: int, most: float, alpha: float) -> int:
    """Return the fewest requests that pass with so many bad ones."""
    n = math.ceil(bad / most)
    needed = proportion(bad, n, most, alpha_pass=alpha, alpha_fail=alpha).needed
    return LARGEST_COUNT if needed is None else n + needed


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
