"""Rare events: how often at most, and how often against stable."""

from __future__ import annotations

import math

from modelrollout.gates import special
from modelrollout.gates.sequential.judgement import (
    Judgement,
    invalid,
    is_level,
    is_number,
    shown,
)
from modelrollout.gates.sequential.shares import proportion
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Verdict

__all__ = ["rate_upper_bound", "two_arm_counts"]


def two_arm_counts(
    k_c: int,
    exposure_c: float,
    k_s: int,
    exposure_s: float,
    *,
    max_ratio: float,
    alpha: float,
    alpha_fail: float | None = None,
    design_effect: float = 1.0,
) -> Judgement:
    """Judge whether events are at most so many times as frequent as at stable.

    When both arms have the same rate, an event is the candidate's with the probability of its
    share of the exposure, whatever the rate does in time. So the candidate's events among all are
    a sequential test of a coin (Lindon and Malek, NeurIPS 2022): `proportion` with the share that
    `max_ratio` times stable's rate would give. That share has to stay the same: when it changes
    together with the rate, more events than its due may fall to one arm.

    Parameters
    ----------
    k_c, k_s
        Events of the candidate and of stable.
    exposure_c, exposure_s
        Requests, hours or what else the rates are counted by.
    max_ratio
        Largest ratio of the candidate's rate to stable's; 1 for "not more often than stable".
    alpha
        Largest probability of ever passing when the ratio is `max_ratio` or more.
    alpha_fail
        Largest probability of ever failing when it is `max_ratio` or less; `alpha` when left out.
    design_effect
        How many events come together: what one counts for is that many times less; at least 1.

    Returns
    -------
    Judgement
        `n` counts the events of both arms; estimate, bounds and limit are ratios of rates. The
        estimate is None without an event, infinite when only the candidate has some. Without an
        event the verdict is Inconclusive: nothing is known of the ratio.
    """
    alpha_fail = alpha if alpha_fail is None else alpha_fail
    if not (is_level(alpha, alpha_fail) and is_number(max_ratio) and max_ratio > 0):
        message = f"{shown(max_ratio)} is no limit for a ratio, or an error level is none"
        return invalid("LimitOutOfRange", message, max_ratio)
    if not (is_count(k_c) and is_count(k_s)):
        return invalid("NotACount", f"{shown(k_c)} or {shown(k_s)} is not a count", max_ratio)
    if not (is_number(exposure_c, exposure_s) and min(exposure_c, exposure_s) >= 0):
        message = f"{shown(exposure_c)} or {shown(exposure_s)} is no exposure"
        return invalid("NotAMeasurement", message, max_ratio)
    max_ratio, exposure_c, exposure_s = float(max_ratio), float(exposure_c), float(exposure_s)
    odds = max_ratio * exposure_c / exposure_s if exposure_s > 0 else math.inf
    scale = exposure_s / exposure_c if exposure_c > 0 else math.inf
    if not (0 < odds < math.inf and scale < math.inf):
        return invalid("NoRequests", "one of the arms has not been exposed", max_ratio)
    counts = f"{k_c} events in {exposure_c:g} against {k_s} in {exposure_s:g} at stable"
    n = int(k_c) + int(k_s)
    if n == 0:
        return Judgement(
            Verdict.INCONCLUSIVE, "NoEvents", 0, None, None, None, max_ratio, None, counts
        )
    coin = proportion(
        int(k_c),
        n,
        odds / (1 + odds),
        alpha_pass=alpha,
        alpha_fail=alpha_fail,
        design_effect=design_effect,
    )
    if coin.verdict is Verdict.INVALID:
        return invalid(coin.reason, f"{counts}: {coin.message}", max_ratio)
    estimate, low, high = (
        None if share is None else _odds(share) * scale
        for share in (coin.estimate, coin.low, coin.high)
    )
    outcome = {
        Verdict.PASS: f"at most {max_ratio:g} times as often",
        Verdict.FAIL: f"more than {max_ratio:g} times as often",
    }.get(coin.verdict, f"more or less than {max_ratio:g} times as often is not decided yet")
    return Judgement(
        coin.verdict,
        coin.reason,
        n,
        estimate,
        low,
        high,
        max_ratio,
        None,
        f"{counts}: {outcome}",
    )


def rate_upper_bound(k: float, exposure: float, *, alpha: float) -> float:
    """Return the upper confidence bound of the rate of rare events.

    The exact bound of Garwood for a Poisson count. Without events it is ``-ln(alpha) / exposure``,
    at 95 % the rule of three: three divided by the exposure.

    Parameters
    ----------
    k
        Events.
    exposure
        Requests, hours or what else the rate is counted by.
    alpha
        Probability that the bound is too low.

    Returns
    -------
    float
        Events per unit of exposure; infinite without exposure, not a number when an argument is
        out of its range.
    """
    if not (is_count(k) and is_number(exposure) and exposure >= 0 and is_level(alpha)):
        return math.nan
    if exposure == 0:
        return math.inf
    return float(special.gammaincinv(int(k) + 1, 1 - float(alpha))) / float(exposure)


def _odds(share: float) -> float:
    return math.inf if share >= 1 else share / (1 - share)
