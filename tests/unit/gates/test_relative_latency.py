"""Latency against stable's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.gates.evidence import Comparison, ProbeTotals
from modelrollout.gates.latency import MOST_FAILED, MOST_LEFT_OUT
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import GateResult, Verdict
from tests.unit.gates.judging import (
    LATENCY_VS_STABLE,
    RELATIVE,
    arm,
    beside,
    counters,
    evidence,
    found,
    log_moments,
)

ORDER = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]


def gate(**kind: Any) -> Gate:
    return Gate.model_validate({"name": "some", **kind})


def compared(candidate: Totals, stable: Totals, **changes: Any) -> GateResult:
    return found(LATENCY_VS_STABLE, beside(candidate, stable, **changes))


# -- latency ---------------------------------------------------------------------------------------
def test_an_equal_candidate_passes_and_a_slow_one_fails() -> None:
    assert compared(arm(150), arm(150)).verdict is Verdict.PASS
    result = compared(arm(150, seconds=1.6), arm(150))
    assert result.verdict is Verdict.FAIL
    assert result.message == (
        "60 % slower than stable over 150 requests (between 43 % slower and 82 % slower): "
        "beyond +10 %, with 95 % confidence"
    )
    assert (result.limit, result.estimate, result.n) == ("<= stable +10 %", "60 % slower", 150)
    assert result.interval == "43 % slower to 82 % slower"


def test_an_undecided_comparison_says_what_would_decide_it() -> None:
    result = compared(arm(60, seconds=1.04), arm(60))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.message == (
        "4 % slower than stable over 60 requests (between 21 % faster and 43 % slower): "
        "passes at about 105 requests like these; fails beyond +10 %, passes below +25 %"
    )
    assert result.needed is not None
    reached = 60 + result.needed
    assert compared(arm(reached, seconds=1.04), arm(reached)).verdict is Verdict.PASS


def test_a_candidate_that_bore_more_load_than_stable_is_not_failed_by_comparison() -> None:
    # given a slow candidate and an equal one, and a probe that spared stable half of its load
    def judged(seconds: float, missed: int) -> GateResult:
        load = ProbeTotals(8, 0.0, loading=True, stable_served=100, stable_missed=missed)
        return compared(arm(150, seconds=seconds), arm(150), probe=load)

    # then the slow one is not failed, whereas the equal one has shown even more
    spared = judged(1.6, 100)
    assert (spared.verdict, spared.reason) == (Verdict.INCONCLUSIVE, "UnequalLoad")
    assert "stable was spared 50 % of the probe's requests" in spared.message
    assert "lower `probe.requestsPerMinute`" in spared.message
    assert judged(1.0, 100).verdict is Verdict.PASS
    assert judged(1.6, 5).verdict is Verdict.FAIL


def test_a_candidate_with_less_load_than_a_pod_of_stable_does_not_pass_by_comparison() -> None:
    # Given a candidate that is as fast as stable at 100 requests, of which stable had more
    def judged(at_stable: int, pods: int = 1, seconds: float = 1.0) -> GateResult:
        both = Comparison(arm(100, seconds=seconds), arm(at_stable), stable_pods=pods)
        return found(LATENCY_VS_STABLE, evidence(both.candidate, comparison=both))

    assert judged(125).verdict is Verdict.PASS
    flattered = judged(126)
    assert (flattered.verdict, flattered.reason) == (Verdict.INCONCLUSIVE, "UnequalLoad")
    assert "a pod of stable had 126 requests in the same time, the candidate 100" in (
        flattered.message
    )
    assert "raise `probe.requestsPerMinute` to what a pod of stable serves" in flattered.message
    # Then it still fails, and three pods may have three times as many
    assert judged(1000, seconds=2.0).verdict is Verdict.FAIL
    assert judged(375, pods=3).verdict is Verdict.PASS
    assert judged(378, pods=3).reason == "UnequalLoad"


@pytest.mark.parametrize("pods", [0, -1, 1.5, float("nan")])
def test_a_number_of_pods_that_is_none_compares_nothing(pods: Any) -> None:
    both = Comparison(arm(100), arm(100), stable_pods=pods)
    result = found(LATENCY_VS_STABLE, evidence(both.candidate, comparison=both))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NotACount")


def test_between_the_margins_nothing_is_promised() -> None:
    result = compared(arm(90, seconds=1.3), arm(90))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needed is None
    assert ": not decided yet; fails beyond +10 %, passes below +25 %" in result.message


def test_a_few_requests_are_no_comparison() -> None:
    faster, slower = (compared(arm(29, seconds=seconds), arm(200)) for seconds in (0.1, 10.0))
    assert faster.verdict is slower.verdict is Verdict.INCONCLUSIVE
    assert faster.interval is slower.interval is None
    assert (
        "10 x as slow as stable over 29 requests: a comparison takes 30 requests of each arm"
        in (slower.message)
    )
    # And neither are a few of stable
    short = compared(arm(200, seconds=10.0), arm(29))
    assert (short.verdict, short.interval) == (Verdict.INCONCLUSIVE, None)
    assert "a comparison takes 30 requests of each arm, stable has 29" in short.message


def test_many_times_as_slow_is_said_as_that() -> None:
    assert "4 x as slow as stable" in compared(arm(150, seconds=4.0), arm(150)).message


def test_the_pass_margin_can_be_declared() -> None:
    # Given a candidate that is 8 % slower
    given = beside(arm(150, seconds=1.08), arm(150))
    wide = gate(latency={"maxIncreasePercent": 5, "passMarginPercent": 50})
    narrow = gate(latency={"maxIncreasePercent": 5, "passMarginPercent": 6})
    assert found(wide, given).verdict is Verdict.PASS
    assert found(narrow, given).verdict is Verdict.INCONCLUSIVE
    assert "passes below +6 %" in found(narrow, given).message


def test_more_planned_requests_ask_for_a_higher_line() -> None:
    given = beside(arm(96), arm(96))
    few = found(LATENCY_VS_STABLE, given, Analysis(max_requests=300))
    many = found(LATENCY_VS_STABLE, given, Analysis(max_requests=3000))
    assert (few.verdict, many.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)


def test_a_different_mix_of_requests_is_no_difference_in_speed() -> None:
    # Given two classes, one four times as slow as the other, and mixes that are opposite
    def mixed(small: int, large: int) -> Totals:
        return replace(
            arm(small + large),
            log_moments={"small": log_moments(small, 1.0), "large": log_moments(large, 4.0)},
        )

    result = compared(mixed(150, 50), mixed(50, 150))
    assert (result.verdict, result.estimate) == (Verdict.PASS, "no change")
    # And when the server does not tell the classes apart, the mix looks like speed
    pooled = [
        replace(item, log_moments={"": item.log_moments["small"] + item.log_moments["large"]})
        for item in (mixed(150, 50), mixed(50, 150))
    ]
    unstratified = compared(pooled[0], pooled[1])
    assert "faster than stable" in unstratified.message
    assert unstratified.message.endswith(
        ". But the counters know no classes of requests, so another mix of them looks like "
        "another speed"
    )


def test_a_class_that_stable_never_served_is_left_out_and_said_so() -> None:
    few = compared(arm(300, classes={"small": 0.95, "large": 0.05}), arm(300))
    assert few.verdict is Verdict.PASS
    assert few.n == 285
    assert "15 of 300 requests are left out: stable had none of their classes" in few.message
    # And a class that only stable served says nothing of the candidate
    other = compared(arm(300), arm(300, classes={"small": 0.5, "large": 0.5}))
    assert (other.verdict, other.n) == (Verdict.PASS, 300)
    assert "left out" not in other.message


def test_a_candidate_does_not_pass_on_the_smaller_part_of_its_requests() -> None:
    result = compared(arm(400, classes={"small": 0.5, "large": 0.5}), arm(400))
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "ClassesNotCompared")
    assert result.message.endswith("no Pass on that")
    edge = 1 - MOST_LEFT_OUT
    at_the_limit = compared(arm(400, classes={"small": edge, "large": 1 - edge}), arm(400))
    assert at_the_limit.verdict is Verdict.PASS
    # It fails on them all the same
    slow = compared(arm(400, seconds=2.0, classes={"small": 0.5, "large": 0.5}), arm(400))
    assert slow.verdict is Verdict.FAIL


def test_arms_without_a_class_in_common_are_not_compared() -> None:
    result = compared(arm(200, classes={"large": 1.0}), arm(200))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NothingInCommon")
    nothing = compared(arm(200, classes={}), arm(200))
    assert nothing.message == "the candidate has not served a request yet"


def test_failing_what_it_cannot_do_quickly_does_not_pass() -> None:
    # Given failures of 2 % of the candidate's requests, and of a few more
    few, many = arm(294, failed=6), arm(294, failed=20)
    assert 6 / 300 <= MOST_FAILED < 20 / 314
    assert compared(few, arm(300)).verdict is Verdict.PASS
    result = compared(many, arm(300))
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "TooManyFailed")
    assert "But 6.37 % of its requests failed and have no latency: no Pass" in result.message
    # And when stable fails as many, both arms look as much faster
    assert compared(many, arm(294, failed=20)).verdict is Verdict.PASS


@pytest.mark.parametrize("wanted", RELATIVE, ids=lambda item: item.name)
def test_without_stable_there_is_no_comparison(wanted: Gate) -> None:
    result = found(wanted, evidence(arm(200)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NoComparison")
    told = found(wanted, evidence(arm(200), comparison_problem="stable's pod was restarted"))
    assert "stable's pod was restarted" in told.message


@pytest.mark.parametrize("wanted", RELATIVE, ids=lambda item: item.name)
def test_requests_of_the_warm_up_are_not_compared(wanted: Gate) -> None:
    given = beside(arm(200, seconds=9.0), arm(200), baseline=None)
    assert found(wanted, given).verdict is not Verdict.FAIL
    assert found(wanted, given).verdict is not Verdict.PASS


def test_bursts_make_a_comparison_less_certain() -> None:
    alone, bursts = (
        compared(arm(96), arm(96), design_effects={"log_seconds": effect}) for effect in (1.0, 4.0)
    )
    assert (alone.verdict, bursts.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert "in bursts: 96 requests count as 24" in bursts.message
    assert "bursts" not in alone.message


# -- laws ------------------------------------------------------------------------------------------
@given(failed=st.integers(0, 400), more=st.integers(1, 400), seconds=st.floats(0.5, 2))
def test_more_failures_never_improve_a_comparison(failed: int, more: int, seconds: float) -> None:
    before = compared(arm(200, seconds=seconds, failed=failed), arm(200)).verdict
    after = compared(arm(200, seconds=seconds, failed=failed + more), arm(200)).verdict
    assert ORDER.index(after) >= ORDER.index(before)


@given(st.integers(30, 2000), st.floats(0.2, 5), st.floats(1, 20))
def test_bursts_never_decide_what_was_undecided(n: int, seconds: float, effect: float) -> None:
    alone = compared(arm(n, seconds=seconds), arm(n)).verdict
    bursts = compared(
        arm(n, seconds=seconds), arm(n), design_effects={"log_seconds": effect}
    ).verdict
    assert bursts in (alone, Verdict.INCONCLUSIVE)


def test_moments_that_no_requests_have_are_not_compared() -> None:
    for moments in (
        replace(log_moments(100, 1.0), squares=float("nan")),
        replace(log_moments(100, 1.0), total=float("inf")),
        replace(log_moments(100, 1.0), count=-1),
        replace(log_moments(100, 1.0), count=10**400),
    ):
        broken = replace(counters(100), log_moments={"small": moments})
        given = replace(beside(arm(100), broken), latest=counters(100))
        result = found(LATENCY_VS_STABLE, given)
        assert (result.verdict, result.reason) == (Verdict.INVALID, "NotMoments")
