"""What is told of the gates before a trial: requests, time, and how stable itself would fare."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.conditions import MESSAGE_LIMIT
from modelrollout.api.spec import Spec
from modelrollout.gates.lint import GateLint, Lint, lint
from modelrollout.gates.operating import ShareTest, share_operating
from modelrollout.gates.sequential import log_information, log_latency, mean_limit
from modelrollout.gates.totals import LogMoments, Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import arm, counters

P95 = {"name": "latency-p95", "latency": {"percentile": 95, "maxMilliseconds": 1700}}
ERRORS = {"name": "errors", "errors": {"maxPercent": "5"}}
SLOWER = {"name": "slower", "latency": {"maxIncreasePercent": 10}}
COST = {"name": "cost", "cost": {"maxPerImage": "0.002"}}
DEARER = {"name": "dearer", "cost": {"maxIncreasePercent": 10}}
MEMORY = {"name": "oom", "outOfMemory": {"maxCount": 0}}
PEAK = {"name": "gpu-memory", "gpuMemory": {"maxPercent": 92}}
REPEATABLE = {"name": "repeatable", "stability": {"kind": "Repeat", "max": "0.002"}}

STORY = {
    "pool": "preview",
    "model": {
        "source": {"persistentVolumeClaim": {"claimName": "models", "path": "sd"}},
        "pipeline": {
            "scheduler": "DDIM",
            "steps": 10,
            "guidanceScale": "5",
            "width": 64,
            "height": 64,
        },
        "limits": {"maxSteps": 100, "maxPixels": 65536},
    },
}


def declared(*gates: dict[str, Any], **changes: Any) -> Spec:
    """A spec with these gates, 60 requests a minute, and whatever else is changed."""
    return Spec.model_validate({**STORY, "gates": list(gates), **changes})


def linted(*gates: dict[str, Any], stable: Totals | None = None, **changes: Any) -> Lint:
    return lint(declared(*gates, **changes), gpu_hour_price=Decimal("3.60"), stable=stable)


def only(found: Lint) -> GateLint:
    (gate,) = found.gates
    return gate


def stable_that(requests: int, **more: Any) -> Totals:
    """Lifetime counters of stable: so many requests of a second each."""
    return arm(requests, **more)


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


# -- means -----------------------------------------------------------------------------------------
def test_a_comparison_takes_the_requests_that_stables_spread_asks_for() -> None:
    stable = stable_that(400, classes={"small": 0.75, "large": 0.25})
    gate = only(linted(SLOWER, stable=stable))
    strata = [
        (item.count, item.mean, item.squared_deviations) * 2 for item in stable.log_moments.values()
    ]
    plan = log_information(strata) * 300 / 400
    assert gate.needed_like_stable is not None
    for times, verdict in ((1.1, Verdict.PASS), (0.9, Verdict.INCONCLUSIVE)):
        part = times * gate.needed_like_stable / 400
        found = log_latency(
            [(round(part * n), mean, part * ss) * 2 for n, mean, ss, *_ in strata],
            margin_fail=1.10,
            margin_pass=1.25,
            information_max=plan,
            alpha=0.05,
        )
        assert found.verdict is verdict, found.message
    assert gate.p_undecided == pytest.approx(0, abs=0.01)
    assert gate.warning == ""


def test_a_comparison_that_wide_spread_leaves_undecided_is_warned_of() -> None:
    wide = {"small": LogMoments(400, 400 * 7.0, 400 * (49.0 + 1.8**2))}
    gate = only(linted(SLOWER, stable=replace(stable_that(400), log_moments=wide)))
    assert gate.p_undecided is not None
    assert gate.p_undecided > 0.5
    assert gate.needed_like_stable is not None
    assert gate.needed_like_stable > 300
    assert "(times of a class spread by 180 %)" in gate.warning
    assert re.search(
        r"raise `analysis.maxRequests` to \d+, or raise `latency.passMarginPercent`$", gate.warning
    )


def test_a_comparison_without_moments_says_what_it_needs() -> None:
    stable = replace(stable_that(400), log_moments={})
    gate = only(linted(SLOWER, stable=stable))
    assert gate.text == "needs at least 30 requests, and as many at stable"
    assert (gate.needed_best, gate.needed_like_stable, gate.p_undecided) == (30, None, None)


def test_a_limit_on_cost_below_stables_is_warned_of() -> None:
    # A second of a GPU at 3.60 an hour costs 0.001.
    dear = only(linted(COST, stable=stable_that(500, seconds=2.4)))
    assert dear.p_false_rollback == pytest.approx(1)
    assert dear.needed_like_stable is None
    assert dear.warning == (
        "gate 'cost': a candidate like today's stable (0.0024 per image, limit 0.002) would fail "
        "in 100 % of trials; raise `cost.maxPerImage`"
    )
    fair = only(linted(COST, stable=stable_that(500, seconds=1.5)))
    assert (fair.needed_like_stable, fair.warning) == (30, "")


def test_a_cost_gate_with_two_limits_has_to_keep_both() -> None:
    both = {"name": "cost", "cost": {"maxPerImage": "0.002", "maxIncreasePercent": 10}}
    stable = stable_that(500, seconds=1.0, spread=1.2)
    gate, one, other = (
        only(linted(item, stable=stable, analysis={"maxRequests": 100}))
        for item in (both, COST, DEARER)
    )
    assert one.needed_like_stable is not None
    assert other.needed_like_stable is not None
    assert gate.needed_like_stable == max(one.needed_like_stable, other.needed_like_stable)
    assert "costs of requests spread by 120 %" in gate.warning
    assert "raise `cost.maxIncreasePercent`" in gate.warning


def test_nothing_is_told_of_cost_without_a_price() -> None:
    spec = declared(COST)
    found = lint(spec, gpu_hour_price=Decimal("NaN"), stable=stable_that(500))
    assert only(found).needed_like_stable is None


@pytest.mark.parametrize("cost", [0.0019, 0.00195, 0.002, 0.0021])
def test_the_figures_of_a_mean_are_those_of_its_test(cost: float) -> None:
    """The gate itself, on simulated requests, looked at after every fifth."""
    courses, most, spread = 400, 200, 0.2
    stable = counters(500, seconds=1000 * cost, spread=1000 * cost * spread)
    expected = only(linted(COST, stable=stable, analysis={"maxRequests": most}))
    random = np.random.default_rng(20260301)
    ends = dict.fromkeys(Verdict, 0)
    for course in random.lognormal(math.log(cost), spread, (courses, most)) / math.exp(
        spread**2 / 2
    ):
        for n in range(30, most + 1, 5):
            found = mean_limit(
                n, course[:n].mean(), course[:n].std(ddof=1), limit=0.002, n_max=most, alpha=0.05
            ).verdict
            if found is not Verdict.INCONCLUSIVE or n == most:
                ends[found] += 1
                break
    assert expected.p_false_rollback == pytest.approx(ends[Verdict.FAIL] / courses, abs=0.07)
    assert expected.p_undecided == pytest.approx(ends[Verdict.INCONCLUSIVE] / courses, abs=0.1)


# -- facts -----------------------------------------------------------------------------------------
def test_a_stable_that_runs_out_of_memory_makes_a_hard_limit_a_lottery() -> None:
    found = linted(P95, MEMORY, stable=stable_that(1000, slow=10, ooms=2))
    memory = found.gates[1]
    assert memory.p_false_rollback == pytest.approx(1 - math.exp(-140 * 2 / 1000))
    assert memory.warning == (
        "gate 'oom': a candidate like today's stable (out of memory 2 times in 1000 requests, "
        "limit 0 in about 140) would fail in 24 % of trials; raise `outOfMemory.maxCount`"
    )


def test_stages_add_to_the_chance_of_a_rare_event() -> None:
    stages = {"stages": [{"name": "a"}, {"name": "b"}]}
    stable = stable_that(1000, slow=10, ooms=2)
    once, twice = (
        linted(P95, MEMORY, stable=stable, **changes).gates[1].p_false_rollback
        for changes in ({}, {"strategy": stages})
    )
    assert once is not None
    assert twice == pytest.approx(1 - (1 - once) ** 2)


@pytest.mark.parametrize(("peak", "fate"), [(0.92, 0.0), (0.921, 1.0), (None, None)])
def test_a_peak_beyond_the_limit_is_a_fact(peak: float | None, fate: float | None) -> None:
    gate = only(linted(PEAK, stable=stable_that(1000, peak=peak)))
    assert gate.p_false_rollback == fate
    assert ("raise `gpuMemory.maxPercent`" in gate.warning) is (fate == 1)


def test_repeats_are_no_requests() -> None:
    gate = only(linted(REPEATABLE, stable=stable_that(1000)))
    assert (gate.needed_best, gate.seconds, gate.p_undecided) == (None, None, None)
    assert gate.text == "needs the pictures of 8 prompts, made before the load"


# -- the message -----------------------------------------------------------------------------------
def test_a_message_with_too_many_warnings_says_how_many_are_left_out() -> None:
    gates = [
        {
            "name": f"latency-{percentile}",
            "latency": {"percentile": percentile, "maxMilliseconds": 1700},
        }
        for percentile in range(80, 96)
    ]
    found = linted(*gates, stable=stable_that(1000, slow=500))
    assert len(found.warnings) == 16
    message = found.message()
    assert len(message) <= MESSAGE_LIMIT
    told = message.count("would fail")
    assert 1 < told < 16
    assert message.endswith(f"; warnings left out: {16 - told}")


@given(
    st.builds(
        Totals,
        pod=st.just("stable-1"),
        time=st.just(stable_that(1).time),
        succeeded=st.integers(0, 2**53),
        failed=st.integers(0, 2**53),
        images=st.integers(0, 2**53),
        measured=st.integers(0, 2**53),
        gpu_seconds=st.floats(0, 1e60),
        gpu_seconds_squares=st.floats(0, 1e60),
        busy_seconds=st.floats(0, 1e60),
        timed=st.integers(0, 2**53),
        within=st.dictionaries(st.sampled_from([500, 1700, 3000]), st.integers(0, 2**53)),
        out_of_memory=st.integers(0, 2**53),
        log_moments=st.dictionaries(
            st.sampled_from(["small", "large"]),
            st.builds(LogMoments, st.integers(0, 2**53), st.floats(0, 1e60), st.floats(0, 1e60)),
        ),
        peak_memory_share=st.none() | st.floats(0, 1),
    )
)
def test_whatever_stable_has_counted_the_lint_is_made_of_numbers(stable: Totals) -> None:
    both = {"name": "both", "cost": {"maxPerImage": "0", "maxIncreasePercent": 1}}
    never = {"name": "none", "errors": {"maxPercent": "0"}}
    gates = (P95, ERRORS, SLOWER, COST, both, never, MEMORY, PEAK, REPEATABLE)
    found = linted(*gates, stable=stable)
    assert len(found.message()) <= MESSAGE_LIMIT
    for gate in found.gates:
        fails, undecided = gate.p_false_rollback or 0.0, gate.p_undecided or 0.0
        assert 0 <= fails <= 1
        assert 0 <= undecided <= 1
        assert fails + undecided <= 1 + 1e-9
        assert gate.needed_like_stable is None or gate.needed_like_stable <= 1_000_000
