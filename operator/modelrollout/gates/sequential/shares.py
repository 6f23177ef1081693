"""A share of requests against a limit."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from modelrollout.gates import special
from modelrollout.gates.sequential.judgement import (
    LEAST_LEVEL,
    Judgement,
    invalid,
    is_level,
    is_number,
    shown,
)
from modelrollout.gates.totals import LARGEST_COUNT, is_count
from modelrollout.gates.verdict import Verdict

__all__ = ["proportion"]

_PRIOR: Final = 0.5
"""First parameter of both Beta mixtures (Krichevsky-Trofimov); the mixture of the pass side leans
to small shares by its second one, ``0.5 / p0``, for a good candidate is usually far below."""


def proportion(
    k: int,
    n: int,
    p0: float,
    *,
    alpha_pass: float,
    alpha_fail: float,
    design_effect: float = 1.0,
) -> Judgement:
    """Judge whether the share of bad requests is below a limit, from two counts.

    Two e-processes, each a mixture of likelihood ratios against ``p0`` with a Beta distribution
    truncated to one side of it; by Ville's inequality neither ever exceeds ``1 / alpha`` with more
    than the probability `alpha` when the truth is on the other side. The interval is that of
    Clopper and Pearson at this look alone, one-sided at the level of each test; it never
    contradicts a verdict.

    Parameters
    ----------
    k
        Bad requests.
    n
        All requests.
    p0
        The limit: largest share of bad requests, between 2**-53 and 1, as the error levels.
    alpha_pass
        Largest probability of ever passing when the share is `p0` or more.
    alpha_fail
        Largest probability of ever failing when the share is `p0` or less.
    design_effect
        How many times greater the variance of the share is than for independent requests, at
        least 1: against Fail, so many requests count as one (the effective sample size of Kish).
        It does not count for Pass: bad requests that come together show that bursts exist, but
        none of them may ever make a verdict better, and a burst that has not come yet shows
        nothing.

    Returns
    -------
    Judgement
        Invalid when there are no requests, or a number is not what it is said to be; this
        function does not raise.
    """
    if not (is_level(p0, alpha_pass, alpha_fail) and is_number(design_effect)):
        return invalid(
            "LimitOutOfRange",
            f"the limit and the error levels must lie within {LEAST_LEVEL:.3g} and 1",
            p0,
        )
    if not (is_count(k) and is_count(n) and k <= n and design_effect >= 1):
        return invalid("NotACount", f"{shown(k)} of {shown(n)} is not a count", p0)
    k, n, p0 = int(k), int(n), float(p0)
    alpha_pass, alpha_fail = float(alpha_pass), float(alpha_fail)
    bad, all_ = k / float(design_effect), n / float(design_effect)
    passing = _passing_n(k, p0, alpha_pass)
    needed = None if passing is None else max(0, passing - n)
    if n == 0:
        return invalid("NoRequests", "there are no requests yet", p0, needed=needed)
    low = float(special.betaincinv(bad, all_ - bad + 1, alpha_fail)) if k else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - alpha_pass)) if k < n else 1.0
    counts = f"{k} of {n}, limit {100 * p0:.3g} %"
    if _log_e_fail(bad, all_, p0) >= -math.log(alpha_fail):
        verdict, reason, needed = Verdict.FAIL, "LimitExceeded", None
        message = f"{counts}: more than the limit"
    elif needed == 0:
        verdict, reason = Verdict.PASS, "WithinLimit"
        message = f"{counts}: within the limit"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        message = f"{counts}: " + (
            "not decided yet"
            if needed is None
            else f"passes at {n + needed} if none of the next {needed} is bad"
        )
    return Judgement(verdict, reason, n, k / n, low, high, p0, needed, message)


def _log_e_pass(k: float, n: float, p0: float) -> float:
    """Return the log of the evidence against a share of `p0` or more."""
    a, b = _PRIOR, _PRIOR / p0
    inside = float(special.betainc(a + k, b + n - k, p0))
    return _log_ratio(k, n, p0, a, b) + _log(inside) - _log(float(special.betainc(a, b, p0)))


def _log_e_fail(k: float, n: float, p0: float) -> float:
    """Return the log of the evidence against a share of `p0` or less."""
    a, b = _PRIOR, _PRIOR
    inside = float(special.betaincc(a + k, b + n - k, p0))
    return _log_ratio(k, n, p0, a, b) + _log(inside) - _log(float(special.betaincc(a, b, p0)))


def _log_ratio(k: float, n: float, p0: float, a: float, b: float) -> float:
    mixed = float(special.betaln(a + k, b + n - k)) - float(special.betaln(a, b))
    return mixed - k * math.log(p0) - (n - k) * math.log1p(-p0)


def _log(value: float) -> float:
    """Return the logarithm; nothing of the mixture left on a side is no evidence for it."""
    return math.log(value) if value > 0 else -math.inf


@lru_cache(maxsize=4096)
def _passing_n(k: int, p0: float, alpha: float) -> int | None:
    """Return the fewest requests at which `k` bad ones pass.

    Every further good request adds to the evidence, so the first such number is found by halving.
    """
    threshold = -math.log(alpha)
    low, high = k, max(2 * k, 16)
    while _log_e_pass(k, high, p0) < threshold:
        low, high = high, 2 * high
        if high > LARGEST_COUNT:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if _log_e_pass(k, middle, p0) < threshold:
            low = middle
        else:
            high = middle
    return high
