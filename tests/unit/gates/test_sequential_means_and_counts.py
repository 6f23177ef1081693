"""The tests of means, and of the events of two arms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, poisson_means_test

from modelrollout.gates.sequential import (
    Verdict,
    mean_limit,
    mean_ratio,
    rate_upper_bound,
    two_arm_counts,
)

ALPHA = 0.05
Z = float(norm.ppf(1 - ALPHA / 2))
Z_PASS = float(norm.ppf(1 - 0.7 * ALPHA / 2))
"""The line for Pass spends seven tenths of the error."""

WORSE = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
"""Verdicts in the order in which more bad requests may change them."""

wild = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 10**400), st.just(math.nan)
)


# -- means -----------------------------------------------------------------------------------------


def test_a_mean_is_judged_by_the_spread_of_its_logarithm() -> None:
    judgement = mean_limit(100, 2.0, 0.6, limit=2.5, n_max=300, alpha=ALPHA)
    down, up = (z * math.sqrt(300 / 100) * 0.3 / math.sqrt(100) for z in (Z, Z_PASS))
    assert judgement.low == pytest.approx(2.0 * math.exp(-down))
    assert judgement.high == pytest.approx(2.0 * math.exp(up * (1 + 2 * 0.3 / 10)))
    assert judgement.verdict is Verdict.PASS


@given(
    n=st.integers(30, 10**7),
    mean=st.floats(1e-6, 1e6),
    spread=st.floats(0, 3),
    more=st.floats(1, 10),
)
def test_a_greater_mean_never_gets_a_better_verdict(
    n: int, mean: float, spread: float, more: float
) -> None:
    def judged(value: float) -> int:
        found = mean_limit(n, value, spread * value, limit=1.0, n_max=10**7, alpha=ALPHA)
        return WORSE.index(found.verdict)

    assert judged(mean * more) >= judged(mean)


@pytest.mark.parametrize("log_deviation", [0.1, 0.35, 0.55])
@pytest.mark.parametrize("wrong", [Verdict.PASS, Verdict.FAIL])
def test_at_the_limit_a_mean_of_skewed_amounts_errs_in_at_most_one_course_of_twenty(
    log_deviation: float, wrong: Verdict
) -> None:
    rng = np.random.default_rng(20260302)
    courses, limit = 400, math.exp(log_deviation**2 / 2)
    amounts = rng.lognormal(0, log_deviation, (courses, 300))
    erred = sum(
        any(
            mean_limit(
                n,
                float(row[:n].mean()),
                float(row[:n].std(ddof=1)),
                limit=limit,
                n_max=300,
                alpha=ALPHA,
            ).verdict
            is wrong
            for n in range(30, 301, 15)
        )
        for row in amounts
    )
    assert erred <= 0.05 * courses + 3 * math.sqrt(0.05 * 0.95 * courses)


def test_a_mean_is_compared_with_stables() -> None:
    def judged(ratio: float) -> Verdict:
        return mean_ratio(
            40,
            ratio,
            0.3 * ratio,
            160,
            1.0,
            0.3,
            margin_fail=1.15,
            margin_pass=1.4,
            n_max=300,
            alpha=ALPHA,
        ).verdict

    assert judged(1.0) is Verdict.PASS
    assert judged(1.2) is Verdict.INCONCLUSIVE
    assert judged(1.6) is Verdict.FAIL


def test_amounts_that_are_all_zero_are_within_every_limit() -> None:
    assert mean_limit(10, 0.0, 0.0, limit=1.0, n_max=300, alpha=ALPHA).needed == 20
    assert mean_limit(30, 0.0, 0.0, limit=0.0, n_max=300, alpha=ALPHA).verdict is Verdict.PASS
    assert mean_limit(30, 0.1, 0.0, limit=0.0, n_max=300, alpha=ALPHA).verdict is Verdict.FAIL


@given(st.tuples(wild, wild, wild), st.tuples(wild, wild, wild), wild, wild)
def test_means_raise_nothing(candidate: Any, stable: Any, limit: Any, margin: Any) -> None:
    assert mean_limit(*candidate, limit=limit, n_max=margin, alpha=ALPHA).verdict in Verdict
    found = mean_ratio(
        *candidate, *stable, margin_fail=limit, margin_pass=margin, n_max=300, alpha=ALPHA
    )
    assert found.verdict in Verdict


# -- two-arm counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_stable", "failing"), [(0, 3), (2, 5)])
def test_at_a_fifth_of_the_requests_it_fails_at_the_published_number_of_events(
    at_stable: int, failing: int
) -> None:
    def judged(events: int) -> Verdict:
        return two_arm_counts(events, 20, at_stable, 80, max_ratio=1, alpha=ALPHA).verdict

    assert judged(failing) is Verdict.FAIL
    assert judged(failing - 1) is Verdict.INCONCLUSIVE


def test_it_asks_for_more_than_the_tests_for_a_single_look_do() -> None:
    """Whatever fails here is significant in the exact test and the E-test of one look, too."""
    assert poisson_means_test(0, 100, 3, 100).pvalue == pytest.approx(0.0883790, abs=1e-7)
    failing = [
        (k_c, k_s)
        for k_c in range(15)
        for k_s in range(6)
        if two_arm_counts(k_c, 20, k_s, 80, max_ratio=1, alpha=ALPHA).verdict is Verdict.FAIL
    ]
    assert failing
    for k_c, k_s in failing:
        exact = binomtest(k_c, k_c + k_s, 0.2, alternative="greater").pvalue
        assert exact <= ALPHA
        assert poisson_means_test(k_c, 20, k_s, 80, alternative="greater").pvalue <= ALPHA


def test_one_event_against_none_is_caught_at_a_small_share() -> None:
    assert two_arm_counts(1, 2, 0, 98, max_ratio=1, alpha=ALPHA).verdict is Verdict.FAIL
    assert two_arm_counts(1, 50, 0, 50, max_ratio=1, alpha=ALPHA).verdict is Verdict.INCONCLUSIVE


def test_sparse_errors_against_none_at_all_are_caught() -> None:
    """An error in every second minute, where stable has none: no window hides them."""
    caught = [
        errors
        for errors in range(1, 20)
        if two_arm_counts(errors, 30 * errors, 0, 30 * errors, max_ratio=1, alpha=ALPHA).verdict
        is Verdict.FAIL
    ]
    assert caught[0] <= 7


def test_no_event_is_no_proof_of_anything() -> None:
    judgement = two_arm_counts(0, 10_000, 0, 10_000, max_ratio=1, alpha=ALPHA)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.estimate is None


def test_twice_as_often_is_allowed_when_it_is_said_so() -> None:
    assert two_arm_counts(60, 100, 30, 100, max_ratio=1, alpha=ALPHA).verdict is Verdict.FAIL
    assert two_arm_counts(60, 100, 30, 100, max_ratio=6, alpha=ALPHA).verdict is Verdict.PASS
    judgement = two_arm_counts(60, 100, 30, 100, max_ratio=2, alpha=ALPHA)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.estimate == pytest.approx(2.0)


@given(
    k_c=st.integers(0, 200),
    k_s=st.integers(0, 200),
    more=st.integers(0, 50),
    share=st.floats(0.01, 0.99),
)
def test_more_events_never_get_a_better_verdict(
    k_c: int, k_s: int, more: int, share: float
) -> None:
    def judged(events: int) -> int:
        found = two_arm_counts(events, share, k_s, 1 - share, max_ratio=1, alpha=ALPHA)
        return WORSE.index(found.verdict)

    assert judged(k_c + more) >= judged(k_c)


@given(wild, wild, wild, wild, wild)
def test_counts_raise_nothing(k_c: Any, e_c: float, k_s: Any, e_s: float, ratio: float) -> None:
    assert two_arm_counts(k_c, e_c, k_s, e_s, max_ratio=ratio, alpha=ALPHA).verdict in Verdict


@given(wild, wild, wild)
def test_a_rate_bound_raises_nothing(k: Any, exposure: Any, alpha: Any) -> None:
    bound = rate_upper_bound(k, exposure, alpha=alpha)
    assert math.isnan(bound) or bound >= 0
