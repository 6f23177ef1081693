"""Means of positive amounts, such as busy GPU-seconds: against a limit, and against stable."""

from __future__ import annotations

import math
from typing import Final

from modelrollout.gates.sequential.judgement import (
    Judgement,
    invalid,
    is_level,
    is_number,
    shown,
)
from modelrollout.gates.sequential.stopping_line import (
    FEWEST_REQUESTS,
    LEAST_VARIANCE,
    Course,
    judge_course,
)
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Verdict

__all__ = ["SPENT_ON_PASS", "mean_limit", "mean_ratio"]

SPENT_ON_PASS: Final = 0.7
"""Part of the allowed error that the line for Pass spends. The rest is for what the line takes for
granted: costs of a mix of classes are more skewed than a log-normal amount."""

_SKEW: Final = 2.0
_LARGEST_RELATIVE: Final = 1e100
"""Its square is still a number."""


def mean_limit(
    n: int,
    mean: float,
    deviation: float,
    *,
    limit: float,
    n_max: int,
    alpha: float,
    alpha_fail: float | None = None,
    design_effect: float = 1.0,
) -> Judgement:
    """Judge whether the mean of a positive amount is below a limit.

    The logarithm of the mean has the variance ``(deviation / mean)^2 / n`` (delta method) and is
    closer to normal than the mean of skewed amounts; it is judged by one stopping line
    (`stopping_line`).

    Parameters
    ----------
    n
        Amounts so far.
    mean, deviation
        Of the amounts; the standard deviation of single ones.
    limit
        Largest mean allowed.
    n_max
        Amounts at the planned end.
    alpha
        Largest probability of ever passing when the mean is `limit` or more.
    alpha_fail
        Largest probability of ever failing when it is `limit` or less; `alpha` when left out.
    design_effect
        How many times greater the variance of the mean is than for independent amounts.

    Returns
    -------
    Judgement
        Inconclusive below 30 amounts; Invalid when a number is not what it is said to be.
    """
    alpha_fail = alpha if alpha_fail is None else alpha_fail
    levels = is_level(alpha, alpha_fail) and is_number(limit, design_effect)
    if not (levels and limit >= 0 and design_effect >= 1 and is_count(n_max)):
        return invalid("LimitOutOfRange", f"{shown(limit)} is no limit for a mean", limit)
    problem = _problem(n, mean, deviation)
    if problem:
        return invalid("NotAMeasurement", problem, limit)
    if n == 0:
        return invalid("NoRequests", "there are no requests yet", limit)
    if mean == 0:
        return _nothing(int(n), limit)
    information = n / (_relative_variance(mean, deviation) * design_effect)
    planned = information * max(n_max, FEWEST_REQUESTS) / n
    return judge_course(
        Course(int(n), math.log(mean), information, planned, _skew(n, mean, deviation)),
        fail_above=limit,
        pass_below=limit,
        alpha_fail=alpha_fail,
        alpha_pass=SPENT_ON_PASS * alpha,
        subject="mean",
    )


def mean_ratio(  # noqa: PLR0917 - two arms of three numbers, as in the tuple of `log_latency`
    n_c: int,
    mean_c: float,
    deviation_c: float,
    n_s: int,
    mean_s: float,
    deviation_s: float,
    *,
    margin_fail: float,
    margin_pass: float,
    n_max: int,
    alpha: float,
    alpha_fail: float | None = None,
    design_effect: float = 1.0,
) -> Judgement:
    """Judge the ratio of the candidate's mean to stable's, of a positive amount.

    As `mean_limit`, with the variance of the log ratio: the sum of both arms' variances.

    Parameters
    ----------
    n_c, mean_c, deviation_c
        The candidate's amounts: number, mean, standard deviation of single ones.
    n_s, mean_s, deviation_s
        Stable's.
    margin_fail, margin_pass, alpha, alpha_fail, design_effect
        As for `log_latency`.
    n_max
        The candidate's amounts at the planned end; both arms go on in the shares so far.

    Returns
    -------
    Judgement
        `n` counts the candidate's amounts; estimate, bounds and limit are ratios. Inconclusive
        below 30 amounts of either arm.
    """
    alpha_fail = alpha if alpha_fail is None else alpha_fail
    levels = is_level(alpha, alpha_fail) and is_number(margin_fail, margin_pass, design_effect)
    if not (levels and 0 < margin_fail <= margin_pass and design_effect >= 1 and is_count(n_max)):
        return invalid(
            "LimitOutOfRange",
            f"margins must be positive, and ascend: {shown(margin_fail)} and {shown(margin_pass)}",
            margin_fail,
        )
    problem = _problem(n_c, mean_c, deviation_c) or _problem(n_s, mean_s, deviation_s)
    if problem:
        return invalid("NotAMeasurement", problem, margin_fail)
    if not (n_c and n_s and mean_c > 0 and mean_s > 0):
        return invalid("NoRequests", "one of the arms has no amounts to compare", margin_fail)
    variance = (
        _relative_variance(mean_c, deviation_c) / n_c
        + _relative_variance(mean_s, deviation_s) / n_s
    )
    information = 1 / (variance * design_effect)
    planned = information * max(n_max, FEWEST_REQUESTS) / n_c
    return judge_course(
        Course(
            int(n_c),
            math.log(mean_c) - math.log(mean_s),
            information,
            planned,
            skew=_skew(n_c, mean_c, deviation_c),
            skew_stable=_skew(n_s, mean_s, deviation_s),
            n_stable=int(n_s),
        ),
        fail_above=margin_fail,
        pass_below=margin_pass,
        alpha_fail=alpha_fail,
        alpha_pass=SPENT_ON_PASS * alpha,
        subject="ratio of means",
    )


def _skew(n: float, mean: float, deviation: float) -> float:
    """Return by what part the upper bound of a mean has to reach further.

    Of few right-skewed amounts the large ones are missing, and mean and deviation are too small
    together. The first term of Edgeworth's expansion for a log-normal amount is in proportion to
    the relative deviation and falls with the root of `n`; its factor is what kept the error at the
    nominal one in simulation, for log-deviations of 0.1 to 0.55.
    """
    return _SKEW * min(deviation / mean, 1.0) / math.sqrt(n)


def _relative_variance(mean: float, deviation: float) -> float:
    """Return the variance of the log of one amount, to first order."""
    relative = min(deviation / mean, _LARGEST_RELATIVE)
    return max(LEAST_VARIANCE, relative**2)


def _problem(n: float, mean: float, deviation: float) -> str:
    if not (is_number(n, mean, deviation) and is_count(n) and mean >= 0 and deviation >= 0):
        return (
            f"{shown(n)} amounts with a mean of {shown(mean)} and a deviation of {shown(deviation)}"
        )
    return ""


def _nothing(n: int, limit: float) -> Judgement:
    """Judge amounts that are all 0: no limit is below them."""
    missing = max(0, FEWEST_REQUESTS - n)
    return Judgement(
        Verdict.INCONCLUSIVE if missing else Verdict.PASS,
        "MoreRequestsNeeded" if missing else "WithinLimit",
        n,
        0.0,
        0.0,
        0.0,
        limit,
        missing,
        f"all {n} amounts are 0",
    )
