"""Latency of the candidate against that of stable, by moments of log times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

__all__ = ["SPENT_ON_PASS", "Stratum", "log_information", "log_latency"]

Stratum = tuple[float, float, float, float, float, float]
"""``(n_c, mean_c, ss_c, n_s, mean_s, ss_s)``: requests, mean log time and sum of the squared
deviations from it, of the candidate and of stable, for one class of requests."""

_POOLED_WEIGHT: Final = 10
"""Degrees of freedom with which the variance over all classes stands beside that of one class.
Without it, classes of a few requests that happen to lie close together would weigh too much."""

_EQUAL_WEIGHT: Final = 10
"""Degrees of freedom with which equal spreads of the arms stand beside what each arm shows."""

SPENT_ON_PASS: Final = 0.5
"""Part of the allowed error that the line for Pass spends. The rest is kept for what the line takes
for granted and requests do not keep to: known spreads, normal means, no bursts. The line for Fail
spends all of its own: a wrong Fail costs a rollout, a wrong Pass an incident."""

_LEAST_SPREAD: Final = 0.7
"""Variance of the candidate's times, in parts of stable's, below which none is believed."""

_LARGEST_LOG: Final = 1e6
"""No time has a logarithm beyond it."""

_LARGEST_EFFECT: Final = 1e9
_STRATUM_NUMBERS: Final = 6
_NO_CLASS: Final = "a class is not six numbers"


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

    On the log scale a slow-down is a shift; within each class ``g`` it is estimated by the
    difference of mean logs, and a weighted mean over the classes is judged by one stopping line
    (`stopping_line`) against two margins. The weights differ by what is claimed:

    * Fail claims that some requests are too slow. Classes are weighted by their information
      ``1 / (v_g (1 / n_cg + 1 / n_sg))``, which shows a common shift with the fewest requests
      (stratified score test). ``v_g`` is the variance of stable's times alone: times of the
      candidate that differ must not take weight off a class. That the weights are estimates widens
      the variance of the mean (Meier, Biometrics 1953).
    * Pass claims that requests as they come are not much slower. Classes are weighted by their
      requests, so that none is passed over because its times vary. It is withheld where the other
      estimate would show `margin_fail` to be exceeded if the candidate's times varied less: slower
      requests raise estimate and variance, and never turn Fail into Pass.

    Variances of the means take each arm's own spread into account (Welch), drawn towards equal
    ones, and those of classes are drawn towards the one over all classes: small classes know
    little of theirs.

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
    if not 0 < margin_fail <= margin_pass:
        return invalid(
            "LimitOutOfRange",
            f"margins must be positive, and ascend: {shown(margin_fail)} and {shown(margin_pass)}",
            margin_fail,
        )
    if not 1 <= design_effect <= _LARGEST_EFFECT:
        return invalid("LimitOutOfRange", "the design effect must be 1 or more", margin_fail)
    classes = _pool(strata)
    if isinstance(classes, str):
        return invalid("NotAMeasurement", classes, margin_fail)
    if not classes:
        return invalid(
            "NoRequests",
            "no class was served often enough by both arms to know its spread",
            margin_fail,
        )
    if not (is_number(information_max) and information_max > 0):
        return invalid(
            "HorizonOutOfRange",
            "the planned information must be a positive number",
            margin_fail,
        )
    by_precision, by_requests = _by_precision(classes), _by_requests(classes)
    plan = information_max / by_precision.information
    return judge_course(
        _course(classes, by_requests, plan, design_effect),
        failing=_course(classes, by_precision, plan, design_effect),
        fail_above=margin_fail,
        pass_below=margin_pass,
        alpha_fail=alpha_fail,
        alpha_pass=SPENT_ON_PASS * alpha,
        subject="ratio of times",
    )


def log_information(
    strata: Iterable[Stratum], *, design_effect: float = 1.0, by_requests: bool = False
) -> float:
    """Return the information so far on the log ratio of times: its inverse variance.

    Parameters
    ----------
    strata, design_effect
        As for `log_latency`.
    by_requests
        For classes weighted as Pass weighs them, instead of as Fail does.

    Returns
    -------
    float
        0 when there is nothing to compare, not a number when a number is not what it is said to be.
    """
    classes = _pool(strata)
    usable = is_number(design_effect) and 1 <= design_effect <= _LARGEST_EFFECT
    if isinstance(classes, str) or not usable:
        return float("nan")
    if not classes:
        return 0.0
    mean = _by_requests(classes) if by_requests else _by_precision(classes)
    return mean.information / design_effect


@dataclass(frozen=True, slots=True)
class _Class:
    """What one class says."""

    candidates: int
    stables: int
    difference: float
    variance: float
    """Of the difference."""

    expected: float
    """Variance of the difference as stable's times alone would have it."""

    freedom: float
    """Degrees of freedom of stable's variance."""


@dataclass(frozen=True, slots=True)
class _Mean:
    """A weighted mean of the differences."""

    estimate: float
    information: float
    """Its inverse variance."""

    at_best: float
    """The same, if the candidate's times spread as little as is believed."""


def _by_precision(classes: list[_Class]) -> _Mean:
    """Weigh the classes by how well they know the difference: the least variance of all means."""
    total = sum(1 / item.expected for item in classes)
    weights = [1 / (item.expected * total) for item in classes]
    parts = zip(weights, (item.freedom for item in classes), strict=True)
    return _weighted(
        classes, weights, 1 + 4 * sum(part * (1 - part) / freedom for part, freedom in parts)
    )


def _by_requests(classes: list[_Class]) -> _Mean:
    """Weigh the classes by their requests (as Mantel and Haenszel do, for unequal arms)."""
    weights = [
        item.candidates * item.stables / (item.candidates + item.stables) for item in classes
    ]
    total = sum(weights)
    return _weighted(classes, [weight / total for weight in weights])


def _weighted(classes: list[_Class], weights: list[float], widened: float = 1.0) -> _Mean:
    pairs = list(zip(weights, classes, strict=True))
    variance = sum(weight**2 * item.variance for weight, item in pairs)
    least = _LEAST_SPREAD * sum(weight**2 * item.expected for weight, item in pairs)
    estimate = sum(weight * item.difference for weight, item in pairs)
    return _Mean(estimate, 1 / (variance * widened), 1 / (least * widened))


def _course(classes: list[_Class], mean: _Mean, plan: float, design_effect: float) -> Course:
    """Return how far a mean has come; `plan` is the planned information in parts of today's."""
    n = sum(item.candidates for item in classes)
    return Course(
        n,
        mean.estimate,
        mean.information / design_effect,
        max(mean.information * plan, mean.information / design_effect * FEWEST_REQUESTS / n),
        n_stable=sum(item.stables for item in classes),
        at_best=mean.at_best,
    )


def _pool(strata: Iterable[Stratum]) -> list[_Class] | str:
    """Return what each class that both arms have says, or what is wrong with the numbers."""
    try:
        listed = list(strata)
    except TypeError:
        return _NO_CLASS
    shared: list[Stratum] = []
    for stratum in listed:
        wrong = _wrong(stratum)
        if wrong:
            return wrong
        if stratum[0] and stratum[3]:
            shared.append(stratum)
    freedom = sum(n_c + n_s - 2 for n_c, _, _, n_s, _, _ in shared)
    if freedom <= 0:
        return []
    pooled = max(LEAST_VARIANCE, sum(item[2] + item[5] for item in shared) / freedom)
    freedom_s = sum(n_s - 1 for _, _, _, n_s, _, _ in shared)
    pooled_s = max(LEAST_VARIANCE, sum(item[5] for item in shared) / max(1, freedom_s))
    variances = [
        _drawn(ss_c + ss_s, n_c + n_s - 2, pooled) for n_c, _, ss_c, n_s, _, ss_s in shared
    ]
    spread_c, spread_s = _spreads(shared, variances)
    found = []
    for (n_c, mean_c, _, n_s, mean_s, ss_s), variance in zip(shared, variances, strict=True):
        expected = _drawn(ss_s, n_s - 1, pooled_s) * (1 / n_c + 1 / n_s)
        shown = variance * (spread_c / n_c + spread_s / n_s)
        found.append(
            _Class(
                candidates=int(n_c),
                stables=int(n_s),
                difference=mean_c - mean_s,
                variance=max(shown, _LEAST_SPREAD * expected),
                expected=expected,
                freedom=n_s - 1 + _POOLED_WEIGHT,
            )
        )
    return found


def _wrong(stratum: Sequence[float]) -> str:
    """Say what is wrong with the numbers of a class; empty when nothing is."""
    try:
        whole = len(stratum) == _STRATUM_NUMBERS and is_number(*stratum)
    except TypeError:
        whole = False
    if not whole:
        return _NO_CLASS
    n_c, mean_c, ss_c, n_s, mean_s, ss_s = stratum
    if not (is_count(n_c) and is_count(n_s)):
        return f"{shown(n_c)} and {shown(n_s)} requests of a class are not counts"
    if max(abs(mean_c), abs(mean_s)) > _LARGEST_LOG:
        return f"means of {mean_c:g} and {mean_s:g} are no log times"
    if min(ss_c, ss_s) < 0 or max(ss_c, ss_s) > _LARGEST_LOG**2 * max(n_c, n_s):
        return f"{ss_c:g} and {ss_s:g} are no sums of squares of log times"
    return ""


def _drawn(squares: float, freedom: float, pooled: float) -> float:
    """Return the variance of a class, drawn towards that over all classes."""
    drawn = (squares + _POOLED_WEIGHT * pooled) / (freedom + _POOLED_WEIGHT)
    return max(LEAST_VARIANCE, drawn)


def _spreads(strata: list[Stratum], variances: list[float]) -> tuple[float, float]:
    """Return the variances of candidate and stable as multiples of those of their classes."""
    spread_c, spread_s = (
        (_EQUAL_WEIGHT + sum(stratum[at] / v for stratum, v in zip(strata, variances, strict=True)))
        / (_EQUAL_WEIGHT + sum(stratum[at - 2] - 1 for stratum in strata))
        for at in (2, 5)
    )
    return spread_c, spread_s
