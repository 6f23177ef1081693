"""The test of the candidate's log seconds against stable's: what must hold whatever comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.gates.sequential import (
    Verdict,
    log_information,
    log_latency,
)
from tests.unit.gates.latencies import ALPHA, WORSE, Strata, latency, moments, traffic

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
