"""Means of bounded scores, by clusters of scores that belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from modelrollout.gates.scalars import plain
from modelrollout.gates.sequential.judgement import (
    LEAST_LEVEL,
    Judgement,
    invalid,
    is_level,
    is_number,
    shown,
)
from modelrollout.gates.verdict import Verdict

__all__ = ["Clusters", "bounded_mean", "paired_bounded"]

Clusters = Mapping[object, Sequence[float]] | Sequence[Sequence[float]]
"""Scores by cluster, such as the prompt they are of; a mapping or a sequence of sequences."""

_ROUNDING: Final = 1e-9
"""What a score may lie outside its range by arithmetic alone."""


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
        message = f"the margin {shown(margin)} must be at least 0, below 1"
        return invalid("LimitOutOfRange", message, margin)
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
        message = f"the minimum {shown(minimum)} must be between 0 and 1"
        return invalid("LimitOutOfRange", message, minimum)
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
        message = f"the error levels must lie within {LEAST_LEVEL:.3g} and 1"
        return invalid("LimitOutOfRange", message, limit)
    lowest, highest = bounds
    means = _means(clusters, lowest, highest)
    if means is None:
        return invalid("NotAScore", f"a score is no number from {lowest:g} to {highest:g}", limit)
    if not means:
        return invalid("NoScores", "there are no scores yet", limit)

    from modelrollout.gates.sequential.betting import Scores  # noqa: PLC0415 - it says why

    scores = Scores(means, lowest, highest)
    to_pass, to_fail = -math.log(alpha), -math.log(alpha_fail)
    n, estimate = len(means), math.fsum(means) / len(means)
    least, most = scores.lower_bounds((to_pass, to_fail))
    low, high = lowest + least, highest - most
    bets, against = scores.bets((limit - lowest, highest - limit))
    needed: int | None = None
    told = f"mean {estimate:.3g} over {n}, limit {limit:.3g}"
    if against.log_capital >= to_fail:
        verdict, reason = Verdict.FAIL, "LimitExceeded"
        message, high = f"{told}: below it", min(high, limit)
    elif bets.log_capital >= to_pass:
        verdict, reason, needed = Verdict.PASS, "WithinLimit", 0
        message, low = f"{told}: above it", max(low, limit)
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        needed = bets.needed((perfect - limit) / (limit - lowest), to_pass)
        message = f"{told}: between {low:.3g} and {high:.3g}" + (
            "" if needed is None else f"; passes after {needed} more if all are perfect"
        )
    return Judgement(verdict, reason, n, estimate, low, high, limit, needed, message)


def _means(clusters: Clusters, lowest: float, highest: float) -> list[float] | None:
    """Return the mean of each cluster; None when there is anything that is no score."""
    try:
        groups = list(map(tuple, clusters.values() if isinstance(clusters, Mapping) else clusters))
    except TypeError:
        return None
    scores = list(chain.from_iterable(groups))
    if not set(map(type, scores)) <= {float, int}:
        numbers = [[plain(score) for score in group] for group in groups]
        known = [[number for number in group if number is not None] for group in numbers]
        return _means(known, lowest, highest) if known == numbers else None
    if not scores:
        return []
    least, most = min(scores), max(scores)
    if not (lowest - _ROUNDING <= least and most <= highest + _ROUNDING):
        return None
    means = [math.fsum(group) / len(group) for group in groups if group]
    if math.isnan(sum(means)):  # what is not a number may hide from `min` and `max`
        return None
    if least < lowest or most > highest:
        return [min(highest, max(lowest, mean)) for mean in means]
    return means
