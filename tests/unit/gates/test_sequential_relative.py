"""The test of the candidate's log seconds against stable's: its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelrollout.gates.sequential import (
    Verdict,
    log_information,
    mean_ratio,
)
from tests.unit.gates.latencies import ALPHA, Z_PASS, Strata, Z, latency, moments, traffic

# -- log latency: the formula ----------------------------------------------------------------------


@given(
    n_c=st.integers(30, 300),
    n_s=st.integers(30, 2000),
    difference=st.floats(-1, 1),
    variance=st.floats(1e-3, 1),
)
@example(n_c=247, n_s=319, difference=0.140625, variance=0.125)
def test_with_one_class_the_score_is_the_textbook_one(
    n_c: int, n_s: int, difference: float, variance: float
) -> None:
    # given one class with known moments, and arms of the same spread
    strata: Strata = [(n_c, 2.0 + difference, variance * (n_c - 1), n_s, 2.0, variance * (n_s - 1))]
    information = 1 / (variance * (1 / n_c + 1 / n_s))
    planned = information * 300 / n_c

    # when it is judged
    judgement = latency(strata)

    # then the verdict is where the score is beyond the line, and the interval says the same;
    # Pass is withheld where the score would show Fail if the times varied by 0.7 of what they do
    assert log_information(strata) == pytest.approx(information)
    line_fail, line_pass = (z * math.sqrt(planned) for z in (Z, Z_PASS))
    score_fail = information * (difference - math.log(1.10))
    score_pass = information * (difference - math.log(1.25))
    distances = score_fail - line_fail, score_fail - 0.7 * line_fail, score_pass + line_pass
    if min(map(abs, distances)) > 1e-6:
        expected = (
            Verdict.FAIL
            if score_fail > line_fail
            else Verdict.PASS
            if score_pass < -line_pass and score_fail < 0.7 * line_fail
            else Verdict.INCONCLUSIVE
        )
        assert judgement.verdict is expected
    assert judgement.estimate == pytest.approx(math.exp(difference))
    assert judgement.low == pytest.approx(math.exp(difference - line_fail / information))
    assert judgement.high == pytest.approx(math.exp(difference + line_pass / information))


def test_classes_are_compared_within_themselves() -> None:
    """A candidate that got more of the slow class is not slower."""
    # given equal times in each class, and a candidate that serves mostly the slow one
    rng = np.random.default_rng(1)
    quick, slow = rng.normal(2, 0.2, 400), rng.normal(4, 0.2, 400)
    strata: Strata = [
        (*moments(quick[:20]), *moments(quick[20:])),
        (*moments(slow[:200]), *moments(slow[200:])),
    ]
    pooled: Strata = [
        (
            *moments(np.concatenate([quick[:20], slow[:200]])),
            *moments(np.concatenate([quick[20:], slow[200:]])),
        )
    ]

    # then only the unstratified comparison is misled
    assert latency(strata).verdict is Verdict.PASS
    assert latency(strata).estimate == pytest.approx(1.0, abs=0.05)
    unstratified = latency(pooled).estimate
    assert unstratified is not None
    assert unstratified > 1.5


def test_a_class_with_a_small_spread_counts_for_more() -> None:
    # given a steady class that is 20 % slower and an erratic one that is not
    strata: Strata = [
        (100.0, 2.18, 100 * 0.1**2, 400.0, 2.0, 400 * 0.1**2),
        (100.0, 3.00, 100 * 1.0**2, 400.0, 3.0, 400 * 1.0**2),
    ]

    # then the estimate is close to that of the steady one
    estimate = latency(strata).estimate
    assert estimate is not None
    assert estimate > math.exp(0.15)


def test_a_candidate_that_spreads_more_is_judged_by_its_own_spread() -> None:
    # given a candidate that is as fast on average, and spreads three times as much
    alike: Strata = [(100.0, 2.0, 100 * 0.3**2, 400.0, 2.0, 400 * 0.3**2)]
    wide: Strata = [(100.0, 2.0, 100 * 0.9**2, 400.0, 2.0, 400 * 0.3**2)]

    # then its mean is known as Welch's formula says, and so is that of arms that are alike
    assert log_information(alike) == pytest.approx(1 / (0.3**2 / 100 + 0.3**2 / 400), rel=0.05)
    assert log_information(wide) == pytest.approx(1 / (0.9**2 / 100 + 0.3**2 / 400), rel=0.1)


def test_classes_of_one_arm_only_count_for_nothing() -> None:
    strata = traffic(1.0, 60)
    lonely: Strata = [*strata, (50.0, 9.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 70.0, 1.0, 2.0)]
    assert latency(lonely) == latency(strata)


def test_below_thirty_requests_nothing_is_decided() -> None:
    few = latency(traffic(5.0, 20))
    assert few.verdict is Verdict.INCONCLUSIVE
    assert latency(traffic(5.0, 40)).verdict is Verdict.FAIL
    soon = latency(traffic(1.0, 20))
    assert soon.needed is not None
    assert soon.needed >= 10


def test_below_thirty_requests_at_stable_nothing_is_decided() -> None:
    """One request has no spread: it must not be taken for stable's exact speed."""
    candidate = (100.0, 2.5, 100 * 0.1)
    assert latency([(*candidate, 1.0, 2.0, 0.0)]).verdict is Verdict.INCONCLUSIVE
    assert latency([(*candidate, 29.0, 2.0, 2.9)]).verdict is Verdict.INCONCLUSIVE
    assert latency([(*candidate, 60.0, 2.0, 6.0)]).verdict is Verdict.FAIL
    single = mean_ratio(
        *(60, 1.0, 0.1, 1, 0.6, 0.0), margin_fail=1.15, margin_pass=1.4, n_max=300, alpha=ALPHA
    )
    assert single.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("ratio", "wrong"), [(1.10, Verdict.FAIL), (1.25, Verdict.PASS)])
@pytest.mark.parametrize(("spread_c", "spread_s"), [(0.7, 0.35), (0.35, 0.7)])
def test_arms_that_spread_differently_err_no_more_often(
    ratio: float, wrong: Verdict, spread_c: float, spread_s: float
) -> None:
    rng = np.random.default_rng(20260303)
    courses, erred = 300, 0
    for _ in range(courses):
        candidate = rng.normal(math.log(ratio), spread_c, 150)
        stable = rng.normal(0.0, spread_s, 300)
        for n in range(30, 151, 10):
            strata: Strata = [(*moments(candidate[:n]), *moments(stable[: 2 * n]))]
            verdict = latency(strata, information_max=log_information(strata) * 150 / n).verdict
            if verdict is not Verdict.INCONCLUSIVE:
                erred += verdict is wrong
                break
    assert erred <= 0.05 * courses + 3 * math.sqrt(0.05 * 0.95 * courses)


def test_the_requests_that_are_still_needed_are_enough() -> None:
    """With the same mean and spread, it passes at the number that was said, and not before."""
    strata: Strata = [(40.0, 2.0, 40 * 0.09, 160.0, 2.0, 160 * 0.09)]
    judgement = latency(strata)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.needed is not None

    def grown(n: int) -> Verdict:
        same: Strata = [(n, 2.0, n * 0.09, 4.0 * n, 2.0, 4 * n * 0.09)]
        return latency(same).verdict

    assert grown(40 + judgement.needed + 1) is Verdict.PASS
    assert grown(40 + judgement.needed - 2) is Verdict.INCONCLUSIVE


def test_times_that_are_all_equal_are_no_infinite_information() -> None:
    same = latency([(40.0, 2.0, 0.0, 160.0, 2.0, 0.0)])
    slower = latency([(40.0, 2.2, 0.0, 160.0, 2.0, 0.0)])
    assert (same.verdict, slower.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert math.isfinite(log_information([(40.0, 2.0, 0.0, 160.0, 2.0, 0.0)]))


def test_more_evidence_than_was_planned_makes_no_interval_narrower() -> None:
    # given one class, so that all means are one
    small, large = traffic(1.0, 300)[:1], traffic(1.0, 3000)[:1]
    plan = log_information(small)
    at_plan = latency(small, information_max=plan)
    beyond = latency(large, information_max=plan)
    assert at_plan.low is not None
    assert at_plan.high is not None
    assert beyond.low is not None
    assert beyond.high is not None
    assert beyond.high / beyond.low == pytest.approx(at_plan.high / at_plan.low, rel=1e-6)
