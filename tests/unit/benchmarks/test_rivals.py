"""The usual judges do what their documentation says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rivals import (
    AnalysisRun,
    FlaggerLoop,
    Measurement,
    Outcome,
    RankJudge,
    quantile_ratio,
    sorted_quantile,
)

ERROR = Measurement.ERROR


def flagger(*values: float | Measurement, threshold: int) -> Outcome:
    loop = FlaggerLoop(maximum=1.2, iterations=3, threshold=threshold)
    return [loop.check(value) for value in values][-1]


def analysis(*values: float | Measurement, **settings: float) -> Outcome:
    run = AnalysisRun(**{"success_below": 1.2, "count": 3, **settings})  # type: ignore[arg-type]
    return [run.measure(value) for value in values][-1]


class TestFlagger:
    def test_it_passes_after_its_iterations(self) -> None:
        assert flagger(1.0, 1.0, threshold=1) is Outcome.RUNNING
        assert flagger(1.0, 1.0, 1.0, threshold=1) is Outcome.PASSED

    def test_a_failed_check_is_no_iteration(self) -> None:
        assert flagger(1.0, 1.3, 1.0, threshold=2) is Outcome.RUNNING
        assert flagger(1.0, 1.3, 1.0, 1.0, threshold=2) is Outcome.PASSED

    def test_good_checks_take_no_failed_one_back(self) -> None:
        assert flagger(1.3, 1.0, 1.0, 1.3, threshold=2) is Outcome.FAILED

    @pytest.mark.parametrize("value", [ERROR, math.nan, 1.2001, math.inf])
    def test_whatever_is_no_number_within_the_range_is_a_failed_check(
        self, value: float | Measurement
    ) -> None:
        assert flagger(value, threshold=1) is Outcome.FAILED


class TestAnalysisRun:
    def test_it_is_successful_after_its_count(self) -> None:
        assert analysis(1.0, 1.0) is Outcome.RUNNING
        assert analysis(1.0, 1.0, 1.2) is Outcome.PASSED

    def test_by_default_one_failure_ends_it(self) -> None:
        assert analysis(1.0, 1.3) is Outcome.FAILED

    def test_so_many_failures_are_tolerated_as_the_limit_says(self) -> None:
        assert analysis(1.3, 1.3, 1.0, failure_limit=2) is Outcome.PASSED
        assert analysis(1.3, 1.3, 1.3, failure_limit=2) is Outcome.FAILED

    def test_the_fifth_error_in_a_row_ends_it(self) -> None:
        assert analysis(*[ERROR] * 4) is Outcome.RUNNING
        assert analysis(*[ERROR] * 5) is Outcome.FAILED

    def test_errors_that_are_not_in_a_row_do_not_count(self) -> None:
        assert analysis(*[ERROR] * 4, 1.0, *[ERROR] * 4, 1.0, 1.0) is Outcome.PASSED

    def test_between_both_conditions_it_is_inconclusive(self) -> None:
        assert analysis(1.3, failure_above=1.5) is Outcome.PAUSED
        assert analysis(1.3, 1.0, 1.0, failure_above=1.5, inconclusive_limit=1) is Outcome.PASSED

    def test_nan_depends_on_the_conditions(self) -> None:
        only_failure = AnalysisRun(success_below=None, failure_above=1.2, count=1)
        assert analysis(math.nan) is Outcome.FAILED
        assert only_failure.measure(math.nan) is Outcome.PASSED
        assert analysis(math.nan, failure_above=1.5) is Outcome.PAUSED


class TestRankJudge:
    def test_a_candidate_far_above_is_high(self) -> None:
        random = np.random.default_rng(1)
        stable = random.lognormal(3, 0.3, 100)
        assert RankJudge().high(1.5 * random.lognormal(3, 0.3, 50), stable)

    def test_identical_samples_pass(self) -> None:
        values = np.linspace(1, 2, 50)
        assert not RankJudge().high(values, values)

    def test_a_shift_below_the_allowed_increase_passes_however_sure(self) -> None:
        values = np.linspace(1, 2, 500)
        assert not RankJudge().high(1.09 * values, values)
        assert RankJudge().high(1.2 * values, values)

    def test_errors_in_half_of_the_minutes_pass_against_none(self) -> None:
        errors = np.array([0.0, 1.0] * 15)
        assert not RankJudge().high(errors, np.zeros(30))

    def test_its_shift_is_the_median_difference(self) -> None:
        low, shift = RankJudge().shift(np.arange(40.0) + 5, np.arange(40.0))
        assert shift == pytest.approx(5)
        assert -5 < low < 5

    def test_it_is_wrong_as_seldom_as_it_says_at_one_look(self) -> None:
        # Given 1000 pairs of samples that are alike
        random = np.random.default_rng(2)
        judge = RankJudge(tolerance=0.0, allowed_increase=0.0)
        # When each is judged once, then about 1 % are called high (half of what 98 % leaves)
        found = [
            judge.high(random.lognormal(size=30), random.lognormal(size=60)) for _ in range(1000)
        ]
        assert 0.002 <= np.mean(found) <= 0.025


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40), st.floats(0.5, 3))
def test_the_ratio_of_quantiles_scales_with_the_candidate(
    values: list[float], factor: float
) -> None:
    stable = np.array(values)
    assert quantile_ratio(factor * stable, stable, 0.95) == pytest.approx(factor)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], quantile: float) -> None:
    found = sorted_quantile(sorted(values), quantile)
    assert found == pytest.approx(float(np.quantile(values, quantile)))


def test_there_is_no_ratio_without_requests() -> None:
    assert math.isnan(quantile_ratio(np.array([]), np.array([1.0]), 0.95))
