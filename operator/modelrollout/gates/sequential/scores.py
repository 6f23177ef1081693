"""Means of bounded scores, by clusters of scores that belong together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from modelrollout.gates.sequential.judgement import Judgement, invalid, is_level, is_number
from modelrollout.gates.verdict import Verdict

__all__ = ["Clusters", "bounded_mean", "paired_bounded"]

Clusters = Mapping[object, Sequence[float]] | Sequence[Sequence[float]]
"""Scores by cluster, such as the prompt they are of; a mapping or a sequence of sequences."""

_Array = npt.NDArray[np.float64]

_STAKES: Final = np.array([[1.0], [1 / 2], [1 / 4], [1 / 8], [1 / 16], [1 / 32]])
"""Parts of the capital that are bet on a cluster. All of it wins fastest when the scores hardly
differ from each other, little of it when they spread."""

_LOG_WEIGHTS: Final = np.log([0.4, 0.12, 0.12, 0.12, 0.12, 0.12])
"""With what part of the capital each stake begins; the first is for scores that are all perfect."""

_KEPT: Final = 1 - _STAKES

_RUIN: Final = 1e-300
"""What is left of a capital that was lost: it is never won back, and has a logarithm."""

_ROUNDING: Final = 1e-9
"""What a mean of scores may lie outside their range by arithmetic alone."""

_PRECISION: Final = 0.01
"""Of a bound that is shown, as a part of its distance from the mean. No verdict rests on it."""

_MOST_CLUSTERS: Final = 10**9


def paired_bounded(
    differences_by_cluster: Clusters,
    *,
    margin: float,
    alpha: float,
    alpha_fail: float | None = None,
) -> Judgement:
    """Judge whether the candidate's scores fell by less than a margin, from paired differences.

    A bet against each side of the margin (Waudby-Smith and Ramdas, "Estimating means of bounded
    random variables by betting", JRSS B 2024), with the mean of a cluster as one observation: what
    is asked of the same prompt is alike. Fixed stakes, mixed, make the outcome independent of the
    order of clusters.

    It is valid at every look: while clusters come one by one the capital is a supermartingale;
    while all clusters gain scores together, it is a martingale in reversed time, because a mean of
    exchangeable scores is. Either way it ever exceeds ``1 / alpha`` with a probability of at most
    `alpha`. Nothing is assumed of the distribution.

    Parameters
    ----------
    differences_by_cluster
        Differences candidate - stable of scores from 0 to 1, each within -1 and 1. Clusters
        without any count for nothing.
    margin
        Largest fall of the mean allowed, from 0 to below 1.
    alpha
        Largest probability of ever passing when the mean falls by `margin` or more.
    alpha_fail
        Largest probability of ever failing when it falls by `margin` or less; `alpha` when it is
        left out.

    Returns
    -------
    Judgement
        `n` counts clusters; estimate and bounds are of the mean difference, the limit is
        ``-margin``; `needed` counts further clusters without a difference.
    """
    if not (is_number(margin) and 0 <= margin < 1):
        return invalid("LimitOutOfRange", f"the margin {margin} must be at least 0, below 1", 0.0)
    return _judge(
        differences_by_cluster, (-1.0, 1.0), -margin, perfect=0.0, alpha=alpha, fail=alpha_fail
    )


def bounded_mean(
    values_by_cluster: Clusters,
    *,
    minimum: float,
    alpha: float,
    alpha_fail: float | None = None,
) -> Judgement:
    """Judge whether the mean of scores from 0 to 1 is above a minimum, as `paired_bounded` does.

    Parameters
    ----------
    values_by_cluster
        Scores from 0 to 1.
    minimum
        Smallest mean allowed, between 0 and 1.
    alpha
        Largest probability of ever passing when the mean is `minimum` or less.
    alpha_fail
        Largest probability of ever failing when it is `minimum` or more; `alpha` when left out.

    Returns
    -------
    Judgement
        `n` counts clusters; `needed` counts further clusters with a perfect score.
    """
    if not (is_number(minimum) and 0 < minimum < 1):
        return invalid("LimitOutOfRange", f"the minimum {minimum} must be between 0 and 1", 0.0)
    return _judge(values_by_cluster, (0.0, 1.0), minimum, perfect=1.0, alpha=alpha, fail=alpha_fail)


def _judge(
    clusters: Clusters,
    bounds: tuple[float, float],
    limit: float,
    *,
    perfect: float,
    alpha: float,
    fail: float | None,
) -> Judgement:
    alpha_fail = alpha if fail is None else fail
    if not is_level(alpha, alpha_fail):
        return invalid("LimitOutOfRange", "the error levels must lie within 0 and 1", limit)
    lowest, highest = bounds
    means = _means(clusters, lowest, highest)
    if means is None:
        return invalid("NotAScore", f"a score is no number from {lowest:g} to {highest:g}", limit)
    if means.size == 0:
        return invalid("NoScores", "there are no scores yet", limit)
    above, below = means - lowest, highest - means
    estimate = float(means.mean())
    low = lowest + _lower_bound(above, estimate - lowest, alpha)
    high = highest - _lower_bound(below, highest - estimate, alpha_fail)
    needed: int | None = None
    shown = f"mean {estimate:.3g} over {means.size}, limit {limit:.3g}"
    if _log_capital(below, highest - limit) >= -math.log(alpha_fail):
        verdict, reason = Verdict.FAIL, "LimitExceeded"
        message, high = f"{shown}: below it", min(high, limit)
    elif _log_capital(above, limit - lowest) >= -math.log(alpha):
        verdict, reason, needed = Verdict.PASS, "WithinLimit", 0
        message, low = f"{shown}: above it", max(low, limit)
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        needed = _needed(above, limit - lowest, perfect - lowest, alpha)
        message = f"{shown}: between {low:.3g} and {high:.3g}" + (
            "" if needed is None else f"; passes after {needed} more if all are perfect"
        )
    return Judgement(verdict, reason, int(means.size), estimate, low, high, limit, needed, message)


def _means(clusters: Clusters, lowest: float, highest: float) -> _Array | None:
    """Return the mean of each cluster, ascending; None when a score is out of its range."""
    groups: Iterable[Sequence[float]] = (
        clusters.values() if isinstance(clusters, Mapping) else clusters
    )
    means = []
    for group in groups:
        scores = [float(score) if is_number(score) else math.nan for score in group]
        if not all(lowest - _ROUNDING <= score <= highest + _ROUNDING for score in scores):
            return None
        if scores:
            means.append(min(highest, max(lowest, math.fsum(scores) / len(scores))))
    return np.sort(np.array(means, dtype=np.float64))


def _growth(above: _Array, limit: float) -> _Array:
    """Return for each stake the log capital won against "the mean is `limit` or less".

    Both count from the lowest possible score. A cluster multiplies the capital by
    ``1 - c + c x / limit``, of which the mean is at most 1 when that of ``x`` is at most `limit`.
    """
    factors = _KEPT + (_STAKES / limit) * above
    total: _Array = np.log(np.maximum(factors, _RUIN)).sum(axis=1)
    return total


def _log_mixture(growth: _Array) -> float:
    parts = (_LOG_WEIGHTS + growth).tolist()
    largest = max(parts)
    return float(largest + math.log(sum(math.exp(part - largest) for part in parts)))


def _log_capital(above: _Array, limit: float) -> float:
    return _log_mixture(_growth(above, limit))


def _lower_bound(above: _Array, mean: float, alpha: float) -> float:
    """Return the largest limit that the mean is shown to exceed; both count from the lowest.

    The capital falls as the limit grows, so the bound is found by the secant kept in a bracket
    (the Illinois variant of regula falsi), on the safe side.
    """
    threshold = -math.log(alpha)
    if mean <= 0:
        return 0.0
    # Where the bound of a normal mean would be; the bracket is widened from there.
    spread = math.sqrt(2 * threshold * (float(above.var()) + mean / above.size) / above.size)
    low, high = max(mean / 2, mean - 2 * spread), mean
    at_high = _log_capital(above, high) - threshold
    while (at_low := _log_capital(above, low) - threshold) < 0:
        low, high, at_high = low / 2, low, at_low
    while high - low > (step := _PRECISION * (mean - low)):
        middle = low + (high - low) * at_low / (at_low - at_high)
        middle = min(high - step / 2, max(low + step / 2, middle))
        value = _log_capital(above, middle) - threshold
        if value >= 0:
            low, at_low, at_high = middle, max(value, _RUIN), at_high / 2
        else:
            high, at_high, at_low = middle, value, at_low / 2
    return low


def _needed(above: _Array, limit: float, perfect: float, alpha: float) -> int | None:
    """Return how many further clusters of the perfect score pass."""
    growth = _growth(above, limit)
    step = _growth(np.array([perfect]), limit)

    def passes(count: int) -> bool:
        return _log_mixture(growth + count * step) >= -math.log(alpha)

    return _first(passes) if perfect > limit else None


def _first(passes: Callable[[int], bool]) -> int | None:
    """Return the smallest positive number that passes; all above it do, too."""
    low, high = 0, 1
    while not passes(high):
        low, high = high, 2 * high
        if high > _MOST_CLUSTERS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle
    return high
