"""What is told of the gates before a trial: requests, time, and how stable itself would fare."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.gates.lint import GateLint
from modelrollout.gates.operating import ShareTest, share_operating
from tests.unit.gates.linting import (
    COST,
    ERRORS,
    MEMORY,
    P95,
    PEAK,
    SLOWER,
    linted,
    only,
    stable_that,
)


# -- while stable is not known ---------------------------------------------------------------------
def test_without_stable_it_says_what_perfect_evidence_takes() -> None:
    found = linted(P95, MEMORY, analysis={"warmupRequests": 0})
    assert found.message() == (
        "accepted; the gates need at least 72 requests, 1 min 12 s at 60 requests/min"
    )
    assert found.needed == 72
    latency, memory = found.gates
    assert (latency.needed_best, latency.seconds) == (72, 72)
    assert (latency.p_false_rollback, latency.p_undecided) == (None, None)
    assert latency.text == "needs 72 requests if none is slow"
    assert memory.needed_best == 30


def test_the_warm_up_takes_its_time() -> None:
    found = linted(P95, strategy={"stages": [{"name": "a", "probe": {"requestsPerMinute": 6}}]})
    assert found.seconds == (72 + 10) * 10
    assert found.message() == (
        "accepted; the gates need at least 72 requests after 10 of warm-up, "
        "13 min 40 s at 6 requests/min"
    )


def test_every_stage_takes_its_requests_and_its_time() -> None:
    stages = [
        {"name": "slow", "probe": {"requestsPerMinute": 60}},
        {"name": "fast", "probe": {"requestsPerMinute": 120}},
    ]
    found = linted(P95, analysis={"warmupRequests": 28}, strategy={"stages": stages})
    assert found.seconds == 100 + 50
    assert found.message() == (
        "accepted; the gates need at least 72 requests after 28 of warm-up in each of 2 stages, "
        "2 min 30 s"
    )


@pytest.mark.parametrize(
    ("rate", "words"),
    [(6000, "1 s"), (120, "41 s"), (80, "1 min 2 s"), (1, "1 h 22 min")],
)
def test_times_are_told_in_their_two_largest_units(rate: int, words: str) -> None:
    stages = [{"name": "a", "probe": {"requestsPerMinute": rate}}]
    found = linted(P95, strategy={"stages": stages, "deadlines": {"analysisSeconds": 100000}})
    assert f"warm-up, {words} at {rate} requests/min" in found.message()


def test_gates_that_only_observe_ask_for_nothing() -> None:
    observed = {**P95, "mode": "Observe"}
    tenth = {"name": "errors", "errors": {"maxPercent": "10"}}
    found = linted(observed, tenth, stable=stable_that(1000, slow=900))
    assert found.needed == 35
    assert found.warnings == ()
    assert found.gates[0].p_false_rollback is not None, "its figures are there all the same"


def test_requests_that_do_not_fit_into_the_time_are_warned_of() -> None:
    strategy = {"deadlines": {"analysisSeconds": 60}}
    found = linted(P95, strategy=strategy)
    (warning,) = found.warnings
    assert warning == (
        "only 50 requests fit into `strategy.deadlines.analysisSeconds` (60 s): "
        "raise it, or `probe.requestsPerMinute`"
    )
    assert linted(P95, strategy=strategy, stable=stable_that(1000)).warnings == found.warnings


def test_requests_that_are_not_declared_are_no_question_of_time() -> None:
    found = linted(P95, analysis={"minRequests": 30, "maxRequests": 50})
    assert found.warnings == ("only 50 requests are made (`analysis.maxRequests`): raise it",)


NO_NUMBERS = {
    "no-number": {"within": {1700: math.nan}},
    "negative": {"failed": -1},
    "infinite": {"gpu_seconds": math.inf},
    "huge": {"timed": 2**60},
    "peak": {"peak_memory_share": 1.5},
}


@pytest.mark.parametrize("broken", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_counters_that_cannot_be_are_as_good_as_none(broken: dict[str, Any]) -> None:
    gates = (P95, ERRORS, SLOWER, COST, MEMORY, PEAK)
    assert linted(*gates, stable=replace(stable_that(1000), **broken)) == linted(*gates)


def test_a_stable_that_has_hardly_served_tells_nothing_of_its_requests() -> None:
    gates = (P95, ERRORS, SLOWER, COST, MEMORY)
    assert linted(*gates, stable=stable_that(29, slow=20, failed=0)) == linted(*gates)


# -- shares of requests ----------------------------------------------------------------------------
def test_a_good_stable_makes_the_message_more_precise_and_no_longer() -> None:
    found = linted(P95, ERRORS, MEMORY, stable=stable_that(1000, slow=10))
    assert found.message() == (
        "accepted; a candidate like today's stable needs about 130 requests after 10 of warm-up, "
        "2 min 20 s at 60 requests/min"
    )
    latency = found.gates[0]
    assert latency.needed_like_stable == 130
    assert latency.text == "needs 72 requests if none is slow, about 130 at stable's share"


def test_a_limit_that_stable_exceeds_is_warned_of_with_one_that_it_keeps() -> None:
    within = {1000: 0, 1700: 900, 2000: 960, 2500: 999, 5000: 1000}
    found = linted(P95, stable=replace(stable_that(1000), within=within))
    gate = only(found)
    exact = share_operating(ShareTest(0.05, 0.05, 0.05, 30, 300), 0.10)
    assert gate.p_false_rollback == pytest.approx(exact.fails)
    assert gate.p_undecided == pytest.approx(exact.undecided)
    assert gate.needed_like_stable is None
    assert gate.warning == (
        "gate 'latency-p95': a candidate like today's stable (10 % of 1000 slower than 1700 ms, "
        "limit 5 %) would fail in 65 % and stay undecided in 35 % of trials; "
        "raise `latency.maxMilliseconds` to 2500"
    )
    assert "the gates need at least 72 requests" in found.message()


def test_a_stable_that_no_edge_suits_is_told_of_both_knobs() -> None:
    found = linted(P95, stable=replace(stable_that(1000), within={1700: 500, 3000: 501}))
    assert only(found).warning.endswith(
        "raise `latency.maxMilliseconds` or lower `latency.percentile`"
    )


def test_a_limit_that_is_none_of_stables_edges_is_judged_by_the_next_one() -> None:
    within = {1000: 0, 2000: 800, 5000: 1000}
    gate = only(linted(P95, stable=replace(stable_that(1000), within=within)))
    exact = share_operating(ShareTest(0.05, 0.05, 0.05, 30, 300), 0.20)
    assert gate.p_false_rollback == pytest.approx(exact.fails), "more than these may be slow"
    assert gate.p_undecided is None
    assert "(at least 20 % of 1000 slower than 1700 ms, limit 5 %)" in gate.warning


def test_nothing_is_told_where_stable_has_no_edge_beyond_the_limit() -> None:
    gate = only(linted(P95, stable=replace(stable_that(1000), within={1000: 900})))
    assert (gate.p_false_rollback, gate.warning) == (None, "")


def test_failed_requests_are_not_answered_in_time() -> None:
    stable = stable_that(900, failed=100)
    latency, errors = linted(P95, ERRORS, stable=stable).gates
    assert latency.p_false_rollback == errors.p_false_rollback
    assert "10 % of 1000 failed, limit 5 %" in errors.warning
    assert errors.warning.endswith("; raise `errors.maxPercent`")


@given(
    slow=st.integers(0, 45),
    most=st.sampled_from([80, 100, 300, 1000]),
    percentile=st.sampled_from([90, 95]),
    seconds=st.sampled_from([120, 600, 7200]),
)
def test_what_is_advised_decides_most_trials(
    slow: int, most: int, percentile: int, seconds: int
) -> None:
    gate = {"name": "slow", "latency": {"percentile": percentile, "maxMilliseconds": 1700}}
    stable = stable_that(1000, slow=slow)

    def told(requests: int, time: int) -> GateLint:
        return only(
            linted(
                gate,
                stable=stable,
                analysis={"maxRequests": requests},
                strategy={"deadlines": {"analysisSeconds": time}},
            )
        )

    before = told(most, seconds)
    requests = re.search(r"`analysis.maxRequests` to (\d+)", before.warning)
    time = re.search(r"`strategy.deadlines.analysisSeconds` to (\d+)", before.warning)
    assert bool(before.warning) == ((before.p_undecided or 0) > 0.5)
    assert bool(before.warning) == bool(requests or time)
    after = told(int(requests[1]) if requests else most, int(time[1]) if time else seconds)
    assert after.warning == ""


def test_time_that_does_not_suffice_for_a_candidate_like_stable_is_to_be_raised() -> None:
    gate = only(
        linted(
            P95,
            stable=stable_that(1000, slow=25),
            analysis={"maxRequests": 1000},
            strategy={"deadlines": {"analysisSeconds": 110}},
        )
    )
    assert gate.warning.endswith(
        "of trials; raise `strategy.deadlines.analysisSeconds` to 680, "
        "or raise `latency.maxMilliseconds` to 3000"
    )


@given(st.integers(0, 38), st.sampled_from([0.05, 0.1, 0.5]))
def test_the_requests_that_are_needed_decide_most_trials_and_fewer_do_not(
    failed: int, limit: float
) -> None:
    gate = {"name": "errors", "errors": {"maxPercent": f"{100 * limit:g}"}}
    stable = stable_that(1000 - failed, failed=failed)
    found = only(linted(gate, stable=stable, analysis={"maxRequests": 1000}))
    needed = found.needed_like_stable
    if needed is None:
        assert failed / 1000 > 0.8 * limit
        return
    by_then = share_operating(ShareTest(limit, 0.05, 0.05, 30, needed), failed / 1000)
    assert by_then.undecided <= 0.5
    if found.p_undecided is not None and found.p_undecided < 0.5:
        # Looks are up to 1.6 % apart
        fewer = needed - 1 - needed // 60
        before = share_operating(ShareTest(limit, 0.05, 0.05, 30, fewer), failed / 1000)
        assert before.undecided > 0.5


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 99), st.integers(80, 99))
def test_a_worse_stable_is_rolled_back_more_often(
    one: int, other: int, percent: int, confidence: int
) -> None:
    gate = {"name": "errors", "errors": {"maxPercent": str(percent)}}
    analysis = {"maxRequests": 400, "confidencePercent": confidence}
    better, worse = (
        only(linted(gate, stable=stable_that(1000 - failed, failed=failed), analysis=analysis))
        for failed in sorted((one, other))
    )
    assert better.p_false_rollback is not None
    assert worse.p_false_rollback is not None
    assert worse.p_false_rollback >= better.p_false_rollback - 1e-12


def test_a_plan_of_a_million_requests_is_followed_part_of_the_way() -> None:
    gate = only(
        linted(
            ERRORS,
            stable=stable_that(9600, failed=400),
            analysis={"maxRequests": 1_000_000},
            strategy={
                "stages": [{"name": "a", "probe": {"requestsPerMinute": 6000}}],
                "deadlines": {"analysisSeconds": 600_000},
            },
        )
    )
    assert gate.p_undecided is None
    assert gate.p_false_rollback is not None
    assert gate.p_false_rollback < 0.05
    assert gate.needed_like_stable is not None
    assert gate.warning == ""
