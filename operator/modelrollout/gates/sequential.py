"""Tests that may be looked at as often as one likes.

Each is a pure function of the evidence so far. Its error probabilities hold for the whole course
of an attempt, however often and whenever it is asked (Ville's inequality), so a verdict may be
acted on the moment it appears.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scipy.special import betainc, betaincc, betaincinv, betaln, gammaincinv

from modelrollout.gates.totals import LARGEST_COUNT, is_count
from modelrollout.gates.verdict import Verdict

__all__ = ["Judgement", "mean_half_width", "proportion", "rate_upper_bound"]

_PRIOR: Final = 0.5
"""First parameter of both Beta mixtures (Krichevsky-Trofimov); the mixture of the pass side leans
to small shares by its second one, ``0.5 / p0``, for a good candidate is usually far below."""

_TIGHTEST_AT: Final = 60
"""Number of values at which the interval for a mean is made to be narrowest."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of a test."""

    verdict: Verdict
    reason: str
    n: int | None
    """Number of observations."""

    estimate: float | None
    low: float | None
    """Lower confidence bound, at the level of the Fail side."""

    high: float | None
    """Upper confidence bound, at the level of the Pass side."""

    limit: float
    needed: int | None
    """Further observations until Pass if all are good; None where that is not known."""

    message: str


def proportion(k: int, n: int, p0: float, *, alpha_pass: float, alpha_fail: float) -> Judgement:
    """Judge whether the share of bad requests is below a limit, from two counts.

    Two e-processes, each a mixture of likelihood ratios against ``p0`` with a Beta distribution
    truncated to one side of it. The interval is that of Clopper and Pearson at this look alone,
    one-sided at the level of each test; it never contradicts a verdict.

    Parameters
    ----------
    k
        Bad requests.
    n
        All requests.
    p0
        The limit: largest share of bad requests, between 0 and 1.
    alpha_pass
        Largest probability of ever passing when the share is `p0` or more.
    alpha_fail
        Largest probability of ever failing when the share is `p0` or less.

    Returns
    -------
    Judgement
        Invalid when there are no requests, or a number is not what it is said to be; this
        function does not raise.
    """
    if not (0 < p0 < 1 and 0 < alpha_pass < 1 and 0 < alpha_fail < 1):
        return _invalid(
            "LimitOutOfRange", "the limit and the error levels must lie within 0 and 1", p0
        )
    if not (is_count(k) and is_count(n) and k <= n):
        return _invalid("NotACount", f"{k} of {n} is not a count", p0)
    k, n = int(k), int(n)
    passing = _passing_n(k, p0, alpha_pass)
    needed = None if passing is None else max(0, passing - n)
    if n == 0:
        return _invalid("NoRequests", "there are no requests yet", p0, needed=needed)
    low = float(betaincinv(k, n - k + 1, alpha_fail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - alpha_pass)) if k < n else 1.0
    counts = f"{k} of {n}, limit {100 * p0:.3g} %"
    if _log_e_fail(k, n, p0) >= -math.log(alpha_fail):
        verdict, reason, needed = Verdict.FAIL, "LimitExceeded", None
        message = f"{counts}: more than the limit"
    elif needed == 0:
        verdict, reason = Verdict.PASS, "WithinLimit"
        message = f"{counts}: within the limit"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        message = f"{counts}: passes at {passing} if none of the next {needed} is bad"
    return Judgement(verdict, reason, n, k / n, low, high, p0, needed, message)


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
    if not (is_count(k) and exposure >= 0 and 0 < alpha < 1):
        return math.nan
    if exposure == 0:
        return math.inf
    return float(gammaincinv(k + 1, 1 - alpha)) / exposure


def mean_half_width(n: int, standard_deviation: float, *, alpha: float) -> float:
    """Return the half-width of an interval that holds the mean at all times at once.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals
    of Statistics, 2024). It needs some values before the mean behaves as a normal one: callers set
    a minimum. In simulation, looking at every value from the 20th to the 1000th at an `alpha` of
    5 %, the upper bound was ever too low in 2 % of courses for normal values, in 5 % for
    log-normal ones of log-deviation 0.35 and in 8 % at 0.55; the lower bound erred in under 2.5 %.

    Parameters
    ----------
    n
        Number of values, at least 1.
    standard_deviation
        Of the values.
    alpha
        Probability that the interval ever misses the mean, on either side.
    """
    doubled = -2 * math.log(alpha)
    tuned = n * (doubled + math.log(doubled) + 1) / _TIGHTEST_AT
    spread = 2 * (tuned + 1) / (n * tuned) * math.log(math.sqrt(tuned + 1) / alpha)
    return standard_deviation * math.sqrt(spread)


def _log_e_pass(k: int, n: int, p0: float) -> float:
    """Return the log of the evidence against a share of `p0` or more."""
    a, b = _PRIOR, _PRIOR / p0
    inside = float(betainc(a + k, b + n - k, p0))
    return _log_ratio(k, n, p0, a, b) + _log(inside) - _log(float(betainc(a, b, p0)))


def _log_e_fail(k: int, n: int, p0: float) -> float:
    """Return the log of the evidence against a share of `p0` or less."""
    a, b = _PRIOR, _PRIOR
    inside = float(betaincc(a + k, b + n - k, p0))
    return _log_ratio(k, n, p0, a, b) + _log(inside) - _log(float(betaincc(a, b, p0)))


def _log_ratio(k: int, n: int, p0: float, a: float, b: float) -> float:
    mixed = float(betaln(a + k, b + n - k)) - float(betaln(a, b))
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


def _invalid(reason: str, message: str, limit: float, *, needed: int | None = None) -> Judgement:
    return Judgement(Verdict.INVALID, reason, None, None, None, None, limit, needed, message)
