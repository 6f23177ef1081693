"""The tests that may be looked at as often as one likes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from modelrollout.gates.sequential import (
    proportion,
    rate_upper_bound,
)
from modelrollout.gates.verdict import Verdict

ALPHA = 0.05


def judged(k: float, n: float, p0: float = 0.05) -> Verdict:
    return proportion(k, n, p0, alpha_pass=ALPHA, alpha_fail=ALPHA).verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("p0", "passing"),
    [
        (0.10, [35, 64, 85, 105]),
        (0.05, [72, 130, 174, 213, 250]),
        (0.01, [367, 657, 881, 1080]),
    ],
)
def test_it_passes_at_the_published_number_of_requests(p0: float, passing: list[int]) -> None:
    for slow, n in enumerate(passing):
        assert judged(slow, n, p0) is Verdict.PASS
        assert judged(slow, n - 1, p0) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("p0", "wilks"), [(0.10, 29), (0.05, 59), (0.01, 299)])
def test_the_interval_alone_would_pass_at_the_number_of_wilks(p0: float, wilks: int) -> None:
    """A single look may; looking often, as here, has its price."""

    def upper(n: int) -> float:
        bound = proportion(0, n, p0, alpha_pass=ALPHA, alpha_fail=ALPHA).high
        assert bound is not None
        return bound

    assert upper(wilks) <= p0 < upper(wilks - 1)
    assert judged(0, wilks, p0) is Verdict.INCONCLUSIVE


@given(k=st.integers(0, 60), n=st.integers(1, 300), effect=st.floats(1, 20))
def test_bursts_count_against_fail_only(k: int, n: int, effect: float) -> None:
    def verdict(design_effect: float) -> Verdict:
        return proportion(
            min(k, n), n, 0.05, alpha_pass=ALPHA, alpha_fail=ALPHA, design_effect=design_effect
        ).verdict

    plain, burst = verdict(1.0), verdict(effect)
    assert burst is plain or (plain, burst) == (Verdict.FAIL, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(("slow", "n"), [(6, 20), (10, 60), (16, 120), (30, 300), (51, 600)])
def test_it_fails_at_the_published_number_of_slow_requests(slow: int, n: int) -> None:
    assert judged(slow, n) is Verdict.FAIL
    assert judged(slow - 1, n) is not Verdict.FAIL


def test_the_critical_number_is_what_it_says() -> None:
    judgement = proportion(1, 96, 0.05, alpha_pass=ALPHA, alpha_fail=ALPHA)
    assert judgement.needed == 34
    assert judged(1, 96 + 34) is Verdict.PASS


@given(n=st.integers(1, 5000), share=st.floats(0, 1), p0=st.floats(0.005, 0.5))
def test_the_interval_is_that_of_clopper_and_pearson_and_never_contradicts_the_verdict(
    n: int, share: float, p0: float
) -> None:
    k = round(n * share)
    judgement = proportion(k, n, p0, alpha_pass=ALPHA, alpha_fail=ALPHA)
    expected = binomtest(k, n).proportion_ci(1 - 2 * ALPHA)
    assert judgement.low is not None
    assert judgement.high is not None
    assert judgement.low == pytest.approx(expected.low, abs=1e-9)
    assert judgement.high == pytest.approx(expected.high, abs=1e-9)
    if judgement.verdict is Verdict.PASS:
        assert judgement.high <= p0
    if judgement.verdict is Verdict.FAIL:
        assert judgement.low > p0


@given(
    n=st.integers(1, 10**7),
    share=st.floats(0, 1),
    more=st.integers(0, 1000),
    p0=st.floats(0.005, 0.5),
)
def test_more_bad_requests_never_turn_fail_into_pass(
    n: int, share: float, more: int, p0: float
) -> None:
    order = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    k = round(n * share)
    fewer, greater = judged(k, n, p0), judged(min(n, k + more), n, p0)
    assert order.index(greater) >= order.index(fewer)


@pytest.mark.parametrize(
    ("k", "n"),
    [
        (math.nan, 10),
        (1, math.nan),
        (-1, 10),
        (0, 0),
        (11, 10),
        (1, math.inf),
        (0.5, 10),
        (0, 10**400),
        (0, -5),
    ],
)
def test_garbage_is_invalid_and_raises_nothing(k: float, n: float) -> None:
    assert judged(k, n) is Verdict.INVALID


@pytest.mark.parametrize("p0", [0.0, 1.0, -0.1, math.nan, 2.0])
def test_a_limit_that_is_no_share_is_invalid(p0: float) -> None:
    assert judged(1, 10, p0) is Verdict.INVALID


@pytest.mark.parametrize(
    ("k", "verdict"),
    [
        (0, Verdict.PASS),
        (490_000, Verdict.PASS),
        (500_000, Verdict.INCONCLUSIVE),
        (510_000, Verdict.FAIL),
        (10**7, Verdict.FAIL),
    ],
)
def test_it_is_stable_with_ten_million_requests(k: int, verdict: Verdict) -> None:
    assert judged(k, 10**7) is verdict


def test_looking_after_every_request_keeps_both_errors_at_the_limit() -> None:
    """At the limit itself, of 400 candidates at most a few ever pass or fail."""
    rng = random.Random(20260301)  # noqa: S311 - a reproducible simulation
    passed = failed = 0
    for _ in range(400):
        slow = 0
        for n in range(1, 301):
            slow += rng.random() < 0.05
            verdict = judged(slow, n)
            if verdict in (Verdict.PASS, Verdict.FAIL):
                passed += verdict is Verdict.PASS
                failed += verdict is Verdict.FAIL
                break
    # 5 % of 400 are 20; three standard deviations more is beyond chance.
    assert passed <= 33
    assert failed <= 33


def test_no_event_is_the_rule_of_three() -> None:
    assert rate_upper_bound(0, 1000, alpha=ALPHA) == pytest.approx(-math.log(ALPHA) / 1000)
    assert rate_upper_bound(0, 2995, alpha=ALPHA) == pytest.approx(1 / 1000, rel=1e-3)
    assert rate_upper_bound(2, 0, alpha=ALPHA) == math.inf
    assert math.isnan(rate_upper_bound(-1, 10, alpha=ALPHA))
