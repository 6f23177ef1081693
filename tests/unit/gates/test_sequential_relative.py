"""The tests of the candidate against stable: log latency, means, two-arm counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from modelrollout.gates.sequential import (
    Judgement,
    Verdict,
    log_information,
    log_latency,
    mean_ratio,
)

ALPHA = 0.05
Z = float(norm.ppf(1 - ALPHA / 2))
Z_PASS = float(norm.ppf(1 - 0.5 * ALPHA / 2))
"""The line for Pass spends half of the error."""

Moments = tuple[float, float, float]
Strata = list[tuple[float, float, float, float, float, float]]

WORSE = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
"""Verdicts in the order in which more bad requests may change them."""


def moments(logs: Any) -> Moments:
    values = np.asarray(logs, dtype=float)
    mean = float(values.mean()) if values.size else 0.0
    return float(values.size), mean, float(((values - mean) ** 2).sum())


def latency(strata: Strata, **changes: float) -> Judgement:
    """Judge against +10 % for Fail and +25 % for Pass, with 300 requests planned."""
    n = sum(item[0] for item in strata if item[3])
    given: dict[str, float] = {
        "margin_fail": 1.10,
        "margin_pass": 1.25,
        "information_max": log_information(strata) * 300 / max(1, n),
        "alpha": ALPHA,
    }
    return log_latency(strata, **{**given, **changes})


def traffic(ratio: float, n: int, *, seed: int = 7, spread: float = 0.3) -> Strata:
    """Requests of two classes; the candidate gets every fifth."""
    rng = np.random.default_rng(seed)
    strata: Strata = []
    for centre, part in ((3.0, 0.6), (3.7, 0.4)):
        size = round(part * n)
        candidate = rng.normal(centre + math.log(ratio), spread, size)
        stable = rng.normal(centre, spread, 4 * size)
        strata.append((*moments(candidate), *moments(stable)))
    return strata


# -- log latency: the formula ----------------------------------------------------------------------


@given(
    n_c=st.integers(30, 300),
    n_s=st.integers(30, 2000),
    difference=st.floats(-1, 1),
    variance=st.floats(1e-3, 1),
)
def test_with_one_class_the_score_is_the_textbook_one(
    n_c: int, n_s: int, difference: float, variance: float
) -> None:
    # given one class with known moments, and arms of the same spread
    strata: Strata = [(n_c, 2.0 + difference, variance * (n_c - 1), n_s, 2.0, variance * (n_s - 1))]
    information = 1 / (variance * (1 / n_c + 1 / n_s))
    planned = information * 300 / n_c

    # when it is judged
    judgement = latency(strata)

    # then the verdict is where the score is beyond the line, and the interval says the same
    assert log_information(strata) == pytest.approx(information)
    line_fail, line_pass = (z * math.sqrt(planned) for z in (Z, Z_PASS))
    score_fail = information * (difference - math.log(1.10))
    score_pass = information * (difference - math.log(1.25))
    if abs(score_fail - line_fail) > 1e-6 and abs(score_pass + line_pass) > 1e-6:
        expected = (
            Verdict.FAIL
            if score_fail > line_fail
            else Verdict.PASS
            if score_pass < -line_pass
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


# -- log latency: laws -----------------------------------------------------------------------------


@given(
    ratio=st.floats(0.5, 2.0),
    more=st.floats(1.0, 3.0),
    n=st.integers(30, 300),
    seed=st.integers(0, 50),
)
def test_a_slower_candidate_never_gets_a_better_verdict(
    ratio: float, more: float, n: int, seed: int
) -> None:
    faster = latency(traffic(ratio, n, seed=seed)).verdict
    slower = latency(traffic(ratio * more, n, seed=seed)).verdict
    assert WORSE.index(slower) >= WORSE.index(faster)


@given(
    ratio=st.floats(0.9, 1.5),
    spread=st.sampled_from([0.02, 0.1, 0.3]),
    size=st.integers(30, 120),
    slower=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 29), st.floats(0, 6)), min_size=1, max_size=12
    ),
    planned=st.sampled_from([None, 100.0, 2000.0]),
)
def test_slower_requests_of_one_class_never_turn_fail_into_pass(
    ratio: float,
    spread: float,
    size: int,
    slower: list[tuple[int, int, float]],
    planned: float | None,
) -> None:
    # given two classes of which the first is slower at the candidate
    rng = np.random.default_rng(3)
    stable = [rng.normal(centre, spread, 4 * size) for centre in (2.0, 3.0)]
    candidate = [
        rng.normal(2.0 + math.log(ratio), spread, size),
        rng.normal(3.0, spread, size),
    ]
    changes = {} if planned is None else {"information_max": planned}

    def judged() -> Verdict:
        pairs = zip(candidate, stable, strict=True)
        return latency([(*moments(c), *moments(s)) for c, s in pairs], **changes).verdict

    # when single requests take longer still
    before = judged()
    for of, at, longer in slower:
        candidate[of][at] += longer

    # then what was too slow is not quick enough
    if before is Verdict.FAIL:
        assert judged() is not Verdict.PASS


def test_one_request_that_hangs_does_not_turn_fail_into_pass() -> None:
    """It raises the variance with the estimate, and so takes the proof of Fail away."""
    # given two classes of which the first is slower at the candidate, just enough for Fail
    rng = np.random.default_rng(3)
    stable = [rng.normal(centre, 0.1, 240) for centre in (2.0, 3.0)]
    candidate = [rng.normal(2.0 + math.log(1.28), 0.1, 60), rng.normal(3.0, 0.1, 60)]

    def judged() -> Verdict:
        pairs = zip(candidate, stable, strict=True)
        return latency([(*moments(c), *moments(s)) for c, s in pairs]).verdict

    assert judged() is Verdict.FAIL

    # when one request of it takes seven times as long
    candidate[0][0] += 2.0

    # then Fail is no longer shown, and Pass is not either
    assert judged() is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("hung", [25, 40])
def test_a_class_in_which_requests_hang_keeps_its_weight(hung: int) -> None:
    """A few requests that take thirty times as long make a class vary, and its mean unsure."""
    # given two classes alike at both arms, but for requests that hang at the candidate
    rng = np.random.default_rng(5)
    stable = [rng.normal(2.0, 0.3, 600) for _ in range(2)]
    candidate = [rng.normal(2.0, 0.3, 150) for _ in range(2)]
    candidate[0][:hung] += math.log(30)

    # when they are compared
    judgement = latency(
        [(*moments(c), *moments(s)) for c, s in zip(candidate, stable, strict=True)]
    )

    # then the estimate is that of the requests, and it does not pass
    typical = math.exp(float(np.mean(candidate)) - float(np.mean(stable)))
    assert judgement.estimate == pytest.approx(typical, rel=0.03)
    assert judgement.verdict is not Verdict.PASS


def test_a_class_whose_times_vary_much_is_not_passed_over() -> None:
    # given that half of the requests vary much by nature, and are twice as slow at the candidate
    rng = np.random.default_rng(6)
    strata = [
        (*moments(rng.normal(2.0, 0.15, 150)), *moments(rng.normal(2.0, 0.15, 600))),
        (*moments(rng.normal(3.0 + math.log(2), 0.9, 150)), *moments(rng.normal(3.0, 0.9, 600))),
    ]

    # then the precise half does not answer for all
    judgement = latency(strata)
    assert judgement.verdict is not Verdict.PASS
    assert judgement.estimate == pytest.approx(math.sqrt(2), rel=0.1)


@given(order=st.permutations(range(2)), ratio=st.floats(0.7, 1.6), n=st.integers(30, 200))
def test_the_order_of_classes_and_the_unit_of_time_change_nothing(
    order: list[int], ratio: float, n: int
) -> None:
    strata = traffic(ratio, n)
    moved: Strata = [
        (c, mean_c + 6.9, ss_c, s, mean_s + 6.9, ss_s)
        for c, mean_c, ss_c, s, mean_s, ss_s in (strata[index] for index in order)
    ]
    one, other = latency(strata), latency(moved)
    assert one.verdict is other.verdict
    assert one.estimate == pytest.approx(other.estimate)


@given(effect=st.floats(1, 10), ratio=st.floats(0.5, 2))
def test_requests_that_come_together_decide_later(effect: float, ratio: float) -> None:
    strata = traffic(ratio, 120)
    plain = latency(strata)
    spread = latency(
        strata,
        design_effect=effect,
        information_max=log_information(strata, design_effect=effect) * 300 / 120,
    )
    assert spread.verdict in (plain.verdict, Verdict.INCONCLUSIVE)
    if spread.verdict is plain.verdict:
        assert spread.estimate == plain.estimate


@pytest.mark.parametrize("of", range(6))
@pytest.mark.parametrize(
    "spoiled",
    [1e308, -1e308, math.nan, math.inf, 10**400, 10**5000],
    ids=["huge", "negative", "nan", "infinite", "400 digits", "5000 digits"],
)
def test_one_spoiled_number_of_a_class_is_said(of: int, spoiled: float) -> None:
    strata = traffic(1.0, 150)
    broken = list(strata[0])
    broken[of] = spoiled
    judgement = log_latency(
        [tuple(broken), strata[1]],  # type: ignore[list-item]
        margin_fail=1.10,
        margin_pass=1.25,
        information_max=1000,
        alpha=ALPHA,
    )
    assert (judgement.verdict, judgement.reason) == (Verdict.INVALID, "NotAMeasurement")


@pytest.mark.parametrize(
    "effect",
    [0.5, 1e307, 10**400, math.nan, -1.0],
    ids=["half", "huge", "many digits", "nan", "negative"],
)
def test_a_design_effect_that_cannot_be_is_said(effect: float) -> None:
    strata = traffic(1.0, 150)
    assert math.isnan(log_information(strata, design_effect=effect))
    judgement = latency(strata, information_max=1000.0, design_effect=effect)
    assert (judgement.verdict, judgement.reason) == (Verdict.INVALID, "LimitOutOfRange")


wild = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 10**400), st.just(math.nan)
)


@given(st.lists(st.tuples(wild, wild, wild, wild, wild, wild), max_size=4), wild, wild, wild, wild)
def test_whatever_it_is_given_it_raises_nothing(
    strata: Any, margin_fail: float, margin_pass: float, planned: float, alpha: float
) -> None:
    judgement = log_latency(
        strata,
        margin_fail=margin_fail,
        margin_pass=margin_pass,
        information_max=planned,
        alpha=alpha,
    )
    assert judgement.verdict in Verdict


@pytest.mark.parametrize(
    "strata",
    [
        [],
        [(0.0, 0.0, 0.0, 100.0, 1.0, 1.0)],
        [(100.0, math.nan, 1.0, 100.0, 1.0, 1.0)],
        [(100.0, 1.0, -1.0, 100.0, 1.0, 1.0)],
        [(100.5, 1.0, 1.0, 100.0, 1.0, 1.0)],
        [(100.0, 1.0, math.inf, 100.0, 1.0, 1.0)],
    ],
)
def test_what_is_no_measurement_is_invalid(strata: Strata) -> None:
    assert latency(strata, information_max=100.0).verdict is Verdict.INVALID


def test_it_is_stable_with_ten_million_requests() -> None:
    n = 5e6
    equal = latency([(n, 9.5, n * 0.1, n, 9.5, n * 0.1)], information_max=n)
    slower = latency([(n, 9.5 + math.log(1.11), n * 0.1, n, 9.5, n * 0.1)], information_max=n)
    assert (equal.verdict, slower.verdict) == (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize(("ratio", "wrong"), [(1.10, Verdict.FAIL), (1.25, Verdict.PASS)])
def test_at_a_margin_looking_often_errs_in_at_most_one_course_of_twenty(
    ratio: float, wrong: Verdict
) -> None:
    rng = np.random.default_rng(20260301)
    courses, erred = 300, 0
    for _ in range(courses):
        candidate = rng.normal(math.log(ratio), 0.35, 150)
        stable = rng.normal(0.0, 0.35, 600)
        for n in range(30, 151, 10):
            strata: Strata = [(*moments(candidate[:n]), *moments(stable[: 4 * n]))]
            planned = log_information(strata) * 150 / n
            verdict = latency(strata, information_max=planned).verdict
            if verdict is not Verdict.INCONCLUSIVE:
                erred += verdict is wrong
                break
    assert erred <= 0.05 * courses + 3 * math.sqrt(0.05 * 0.95 * courses)
