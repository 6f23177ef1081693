"""What gates on a fact have in common: it decides without statistics, as soon as it is known."""

from __future__ import annotations

from typing import Final

from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict

__all__ = ["judge_fact", "told_apart"]

_FEWEST_DIGITS: Final = 3
_ALL_DIGITS: Final = 17
"""So many tell every number from every other."""


def told_apart(value: float, limit: float) -> str:
    """Write a number with three digits, or as many more as tell it from a limit that it is not."""
    for digits in range(_FEWEST_DIGITS, _ALL_DIGITS):
        text = f"{value:.{digits}g}"
        if float(text) != limit and (float(text) > limit) is (value > limit):
            return text
    return f"{value:.{_FEWEST_DIGITS if value == limit else _ALL_DIGITS}g}"


def judge_fact(shown: str, *, exceeded: bool, limit: str, estimate: str, look: Look) -> Finding:
    """Judge a value that is what it is: beyond the limit at once, within it at the minimum.

    Parameters
    ----------
    shown
        The value and its limit, in words.
    exceeded
        Whether it is beyond the limit; then nothing else has to be known.
    limit
        The limit as the gate declares it.
    estimate
        The value, as it is listed.
    look
        Gives the requests so far and the declared minimum.
    """
    if exceeded:
        return Finding(
            Verdict.FAIL,
            "LimitExceeded",
            f"{shown}: exceeded",
            limit,
            n=look.requests,
            estimate=estimate,
        )
    if isinstance(look.measured, Unmeasured):
        return look.measured.finding(limit)
    missing = max(0, look.min_requests - look.requests)
    if look.requests and not missing:
        verdict, reason = Verdict.PASS, "WithinLimit"
        message = f"{shown}, over {look.requests} requests"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        message = f"{shown}: passes at {look.min_requests} requests (`analysis.minRequests`)"
    return Finding(
        verdict, reason, message, limit, n=look.requests, estimate=estimate, needed=missing
    )
