"""Latency of the candidate against that of stable, by moments of log times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from modelrollout.gates.sequential.judgement import Judgement, invalid, is_level, is_number
from modelrollout.gates.sequential.stopping_line import (
    FEWEST_REQUESTS,
    LEAST_VARIANCE,
    Course,
    judge_course,
)
from modelrollout.gates.totals import is_count

__all__ = ["Stratum", "log_information", "log_latency"]

Stratum = tuple[float, float, float, float, float, float]
"""``(n_c, mean_c, ss_c, n_s, mean_s, ss_s)``: requests, mean log time and sum of the squared
deviations from it, of the candidate and of stable, for one class of requests."""

_POOLED_WEIGHT: Final = 10
"""Degrees of freedom with which the variance over all classes stands beside that of one class.
Without it, classes of a few requests that happen to lie close together would weigh too much."""

_EQUAL_WEIGHT: Final = 10
"""Degrees of freedom with which equal spreads of the arms stand beside what each arm shows."""

_SPENT_ON_PASS: Final = 0.8
"""Part of the allowed error that the line for Pass spends. The rest is kept for what the line takes
for granted and requests do not keep to: known spreads, normal means, no bursts. The line for Fail
spends all of its own, since a wrong Fail costs a rollout and a wrong Pass an incident."""

_LARGEST_LOG: Final = 1e6
"""No time has a logarithm beyond it."""


def log_latency(
    strata: Iterable[Stratum],
    *,
    margin_fail: float,
    margin_pass: float,
    information_max: float,
    alpha: float,
    alpha_fail: float | None = None,
    design_effect: float = 1.0,
) -> Judgement:
    """Judge how much slower the candidate is than stable, both measured in the same time.

    The stratified score test. On the log scale a slow-down is a shift; within each class ``g`` it
    is estimated by the difference of mean logs, and the classes are weighted by their information
    ``I_g = 1 / (v_g (1 / n_cg + 1 / n_sg))``. The variance ``v_g`` is that of the class, drawn
    towards the one pooled over classes: classes differ in spread, and small ones know little of
    theirs. The arms may differ in spread (Welch): each has a variance of its own, drawn towards
    equal ones. That the weights are estimates, too, widens the variance of the
    weighted mean (Meier, Biometrics 1953). The verdict is by one stopping line (`stopping_line`),
    against two margins.

    Parameters
    ----------
    strata
        One tuple per class (`Stratum`). The unit of time does not matter; classes that only one
        arm has count for nothing.
    margin_fail
        Fail when the ratio of times is shown to be above it, such as 1.10 for 10 % slower.
    margin_pass
        Pass when the ratio is shown to be below it; at least `margin_fail`. The larger it is, the
        fewer requests are needed.
    information_max
        Information at the planned end, such as ``log_information(strata) * n_max / n``.
    alpha
        Largest probability of ever passing when the ratio is `margin_pass` or more.
    alpha_fail
        Largest probability of ever failing when the ratio is `margin_fail` or less; `alpha` when
        it is left out.
    design_effect
        How many times greater the variance of a mean is than for independent requests, at least 1.

    Returns
    -------
    Judgement
        `n` counts the candidate's requests; estimate, bounds and limit are ratios of times.
        Inconclusive below 30 requests of either arm, Invalid when there is nothing to compare
        or a number is not what it is said to be.
    """
    alpha_fail = alpha if alpha_fail is None else alpha_fail
    if not (is_level(alpha, alpha_fail) and is_number(margin_fail, margin_pass, design_effect)):
        return invalid("LimitOutOfRange", "margins and error levels must be numbers", margin_fail)
    if not (0 < margin_fail <= margin_pass and design_effect >= 1):
        return invalid(
            "LimitOutOfRange",
            f"the margins {margin_fail:g} and {margin_pass:g} must be positive and ascend",
            margin_fail,
        )
    found = _pool(strata)
    if isinstance(found, str):
        return invalid("NotAMeasurement", found, margin_fail)
    if not found:
        return invalid(
            "NoRequests",
            "no class was served often enough by both arms to know its spread",
            margin_fail,
        )
    information = _information(found) / design_effect
    n, at_stable = sum(item.candidates for item in found), sum(item.stables for item in found)
    if not (is_number(information_max) and information_max > 0):
        return invalid(
            "HorizonOutOfRange",
            f"the planned information is {information_max}: it must be a positive number",
            margin_fail,
        )
    weights = sum(item.weight for item in found)
    estimate = sum(item.weight * item.difference for item in found) / weights
    return judge_course(
        Course(
            n,
            estimate,
            information,
            max(information_max, information * FEWEST_REQUESTS / n),
            n_stable=at_stable,
        ),
        fail_above=margin_fail,
        pass_below=margin_pass,
        alpha_fail=alpha_fail,
        alpha_pass=_SPENT_ON_PASS * alpha,
        subject="ratio of times",
    )


def log_information(strata: Iterable[Stratum], *, design_effect: float = 1.0) -> float:
    """Return the information so far on the log ratio of times: its inverse variance.

    Parameters
    ----------
    strata, design_effect
        As for `log_latency`.

    Returns
    -------
    float
        0 when there is nothing to compare, not a number when a number is not what it is said to be.
    """
    found = _pool(strata)
    if isinstance(found, str) or not design_effect >= 1:
        return float("nan")
    return _information(found) / design_effect


@dataclass(frozen=True, slots=True)
class _Contrast:
    """What one class says."""

    candidates: int
    stables: int
    difference: float
    weight: float
    """Inverse variance of the difference, as far as its own variance is known."""

    freedom: float
    """Degrees of freedom of that variance."""


def _information(contrasts: list[_Contrast]) -> float:
    """Return the inverse variance of the weighted mean of the differences."""
    total = sum(item.weight for item in contrasts)
    if not total:
        return 0.0
    parts = ((item.weight / total, item.freedom) for item in contrasts)
    return total / (1 + 4 * sum(part * (1 - part) / freedom for part, freedom in parts))


def _pool(strata: Iterable[Stratum]) -> list[_Contrast] | str:
    """Return what each class that both arms have says, or what is wrong with the numbers."""
    shared: list[Stratum] = []
    for stratum in strata:
        n_c, mean_c, ss_c, n_s, mean_s, ss_s = stratum
        if not (is_number(*stratum) and is_count(n_c) and is_count(n_s)):
            return f"{n_c} and {n_s} requests of a class are not counts, or a moment is no number"
        if min(ss_c, ss_s) < 0 or max(abs(mean_c), abs(mean_s)) > _LARGEST_LOG:
            return f"means of {mean_c:g} and {mean_s:g} are no log times, or a square is negative"
        if n_c and n_s:
            shared.append(stratum)
    freedom = sum(n_c + n_s - 2 for n_c, _, _, n_s, _, _ in shared)
    squares = sum(ss_c + ss_s for _, _, ss_c, _, _, ss_s in shared)
    if freedom <= 0:
        return []
    pooled = max(LEAST_VARIANCE, squares / freedom)
    variances = [
        max(
            LEAST_VARIANCE,
            (ss_c + ss_s + _POOLED_WEIGHT * pooled) / (n_c + n_s - 2 + _POOLED_WEIGHT),
        )
        for n_c, _, ss_c, n_s, _, ss_s in shared
    ]
    spread_c, spread_s = _spreads(shared, variances)
    return [
        _Contrast(
            candidates=int(n_c),
            stables=int(n_s),
            difference=mean_c - mean_s,
            weight=1 / (variance * (spread_c / n_c + spread_s / n_s)),
            freedom=n_c + n_s - 2 + _POOLED_WEIGHT,
        )
        for (n_c, mean_c, _, n_s, mean_s, _), variance in zip(shared, variances, strict=True)
    ]


def _spreads(strata: list[Stratum], variances: list[float]) -> tuple[float, float]:
    """Return the variances of candidate and stable as multiples of those of their classes."""
    spread_c, spread_s = (
        (_EQUAL_WEIGHT + sum(stratum[at] / v for stratum, v in zip(strata, variances, strict=True)))
        / (_EQUAL_WEIGHT + sum(stratum[at - 2] - 1 for stratum in strata))
        for at in (2, 5)
    )
    return spread_c, spread_s
