"""The tests of bounded scores, by clusters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.gates.sequential import Judgement, Verdict, bounded_mean, paired_bounded

ALPHA = 0.05
WORSE = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]

differences = st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=4), min_size=1, max_size=40)


def paired(clusters: Any, margin: float = 0.03, **changes: float) -> Judgement:
    given: dict[str, float] = {"margin": margin, "alpha": ALPHA}
    return paired_bounded(clusters, **{**given, **changes})


def test_without_any_difference_it_takes_about_three_clusters_per_margin() -> None:
    """No test free of assumptions can do with fewer than the rule of three asks: ln 20 / 3 %."""
    fewest = next(n for n in range(1, 500) if paired([[0.0]] * n).verdict is Verdict.PASS)
    assert math.log(1 / ALPHA) / math.log(1 / (1 - 0.03)) <= fewest <= 150
    assert paired([[0.0]] * 40).needed == fewest - 40


def test_a_fall_beyond_the_margin_fails_and_a_small_one_passes() -> None:
    rng = np.random.default_rng(3)

    def judged(fall: float) -> Verdict:
        return paired([[value] for value in rng.normal(-fall, 0.05, 200).clip(-1, 1)]).verdict

    assert judged(0.10) is Verdict.FAIL
    assert judged(0.0) is Verdict.PASS
    assert judged(0.03) is Verdict.INCONCLUSIVE


def test_many_seeds_of_one_prompt_are_one_observation() -> None:
    """One prompt that is always worse proves nothing of prompts."""
    one = paired({"neon sign": [-0.5] * 500})
    assert one.verdict is Verdict.INCONCLUSIVE
    assert one.n == 1
    assert paired({f"prompt {n}": [-0.5] for n in range(500)}).verdict is Verdict.FAIL


def test_the_mean_of_scores_is_judged_against_a_minimum() -> None:
    rng = np.random.default_rng(4)

    def judged(mean: float) -> Verdict:
        scores = [[float(value)] for value in rng.random(150) < mean]
        return bounded_mean(scores, minimum=0.9, alpha=ALPHA).verdict

    assert judged(0.99) is Verdict.PASS
    assert judged(0.5) is Verdict.FAIL
    assert judged(0.9) is Verdict.INCONCLUSIVE


@given(differences, st.floats(0, 0.9))
def test_the_interval_holds_the_estimate_and_never_contradicts_the_verdict(
    clusters: list[list[float]], margin: float
) -> None:
    judgement = paired(clusters, margin)
    assert judgement.estimate is not None
    assert judgement.low is not None
    assert judgement.high is not None
    assert judgement.low - 1e-9 <= judgement.estimate <= judgement.high + 1e-9
    if judgement.verdict is Verdict.PASS:
        assert judgement.low >= -margin
    if judgement.verdict is Verdict.FAIL:
        assert judgement.high <= -margin


def log_capital(scores: list[float], limit: float) -> float:
    """What the mixed stakes win against "the mean is `limit` or less", counted from 0."""
    stakes = {1.0: 0.4, **dict.fromkeys((1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32), 0.12)}

    def won(stake: float) -> float:
        factors = [1 - stake + stake * score / limit for score in scores]
        return math.fsum(map(math.log, factors)) if min(factors) > 0 else -math.inf

    return float(np.logaddexp.reduce([math.log(stakes[stake]) + won(stake) for stake in stakes]))


def largest_exceeded(scores: list[float], alpha: float) -> float:
    """The largest limit against which they win enough, found by halving."""
    low, high = 0.0, max(scores)
    while high - low > 1e-9:
        middle = (low + high) / 2
        if log_capital(scores, middle) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low


@given(differences, st.floats(1e-6, 0.3), st.floats(1e-6, 0.3))
def test_each_bound_is_the_largest_limit_that_is_won_against(
    clusters: list[list[float]], alpha: float, alpha_fail: float
) -> None:
    judgement = paired(clusters, alpha=alpha, alpha_fail=alpha_fail)
    means = [math.fsum(cluster) / len(cluster) for cluster in clusters]
    low = largest_exceeded([mean + 1 for mean in means], alpha) - 1
    high = 1 - largest_exceeded([1 - mean for mean in means], alpha_fail)
    assert judgement.low is not None
    assert judgement.high is not None
    assert low - 1e-4 <= judgement.low <= low + 2e-9
    assert high - 2e-9 <= judgement.high <= high + 1e-4


def test_capital_that_was_lost_is_not_won_back() -> None:
    """One score of 0 ends the stake of everything, however many perfect ones come after it."""
    judgement = bounded_mean([[0.0], *[[1.0]] * 3000], minimum=0.1, alpha=ALPHA, alpha_fail=1e-9)
    assert judgement.verdict is Verdict.PASS
    assert judgement.low == pytest.approx(largest_exceeded([0.0, *[1.0] * 3000], ALPHA), abs=1e-6)


@given(differences, st.floats(0, 0.5), st.floats(0, 1))
def test_lower_scores_never_get_a_better_verdict(
    clusters: list[list[float]], margin: float, fall: float
) -> None:
    worse = [[max(-1.0, value - fall) for value in cluster] for cluster in clusters]
    before, after = paired(clusters, margin).verdict, paired(worse, margin).verdict
    assert WORSE.index(after) >= WORSE.index(before)


@given(st.permutations(range(12)), st.integers(0, 20))
def test_the_order_of_prompts_and_of_seeds_changes_nothing(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = [rng.uniform(-0.3, 0.2, 3).tolist() for _ in range(12)]
    mixed = {f"prompt {index}": clusters[index][::-1] for index in order}
    assert paired(mixed) == paired(clusters)


@given(differences, st.floats(0, 0.5))
def test_the_clusters_that_are_still_needed_are_enough(
    clusters: list[list[float]], margin: float
) -> None:
    judgement = paired(clusters, margin)
    if judgement.verdict is Verdict.INCONCLUSIVE and judgement.needed and judgement.needed < 300:
        passing = [*clusters, *[[0.0]] * judgement.needed]
        assert paired(passing, margin).verdict is Verdict.PASS
        assert paired(passing[:-1], margin).verdict is not Verdict.PASS


wild = st.one_of(st.floats(), st.integers(-5, 10**400))


@given(st.lists(st.lists(wild, max_size=3), max_size=4), wild, wild)
def test_whatever_it_is_given_it_raises_nothing(clusters: Any, limit: Any, alpha: Any) -> None:
    assert paired_bounded(clusters, margin=limit, alpha=alpha).verdict in Verdict
    assert bounded_mean(clusters, minimum=limit, alpha=alpha).verdict in Verdict


@pytest.mark.parametrize("clusters", [[], [[]], {}, [[math.nan]], [[1.5]], [[-math.inf]]])
def test_what_is_no_score_is_invalid(clusters: Any) -> None:
    assert paired(clusters).verdict is Verdict.INVALID


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    ("fall", "wrong"), [(0.05, Verdict.PASS), (0.05, Verdict.FAIL)], ids=["pass", "fail"]
)
def test_at_the_margin_looking_often_errs_in_at_most_one_course_of_twenty(
    fall: float, wrong: Verdict, *, rounds: bool
) -> None:
    """Whether prompts come one by one or all prompts gain seeds together, of skewed scores."""
    rng = np.random.default_rng(20260301)
    courses, prompts, seeds, erred = 200, 60, 4, 0
    for _ in range(courses):
        # given prompts of which some lose most of their words and most lose none
        level = rng.beta(0.3, 0.3 * (1 - fall) / fall, (prompts, 1))
        scores = -(rng.random((prompts, seeds)) < level).astype(float)
        looks = (
            [scores[:, :count] for count in range(1, seeds + 1)]
            if rounds
            else [scores[:count] for count in range(10, prompts + 1, 5)]
        )
        erred += any(paired(look.tolist(), fall).verdict is wrong for look in looks)
    assert erred <= 0.05 * courses + 3 * math.sqrt(0.05 * 0.95 * courses)
