"""The verdict over all gates."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Analysis
from modelrollout.api.status import GateStatus
from modelrollout.gates.evidence import Comparison, Evidence, ProbeTotals
from modelrollout.gates.judge import evaluate, latency_edges
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    ALL,
    ANALYSIS,
    COST,
    LATENCY,
    LATENCY_VS_STABLE,
    MEMORY,
    NOON,
    STABILITY,
    arm,
    counters,
    evidence,
)

ROOT = Path(__file__).parents[3]


def observed(gate: Gate) -> Gate:
    return gate.model_copy(update={"mode": GateMode.OBSERVE})


def test_a_good_candidate_passes_all_gates() -> None:
    assessment = evaluate(ALL, ANALYSIS, evidence(counters(120)))
    assert assessment.verdict is Verdict.PASS
    assert assessment.requests == 120
    assert [result.name for result in assessment.results] == [gate.name for gate in ALL]


def test_one_failed_gate_decides_and_its_message_is_told() -> None:
    assessment = evaluate(ALL, ANALYSIS, evidence(counters(60, slow=40)))
    assert assessment.verdict is Verdict.FAIL
    assert assessment.reason == "LimitExceeded"
    assert assessment.message.startswith("latency-p95: 40 of 60 slower than 1700 ms")


def test_passing_gates_wait_for_the_minimum_of_requests() -> None:
    few = Analysis(min_requests=150)
    assessment = evaluate([LATENCY, STABILITY], few, evidence(counters(120)))
    assert (assessment.verdict, assessment.reason) == (Verdict.INCONCLUSIVE, "MinRequests")
    assert "120 of at least 150 requests" in assessment.message


# -- load ------------------------------------------------------------------------------------------
def loaded(refused: int = 0, missed: int = 0, slow: int = 0) -> Evidence:
    """Evidence of 294 served requests, and of what was refused or never sent."""
    probe = ProbeTotals(12, 0.0, loading=True, candidate_served=294, candidate_missed=missed)
    return evidence(replace(counters(294, slow=slow), refused=refused), probe=probe)


def test_a_candidate_that_does_not_bear_the_load_does_not_pass() -> None:
    assert evaluate(ALL, ANALYSIS, loaded(refused=6, missed=6)).verdict is Verdict.PASS
    refusing = evaluate(ALL, ANALYSIS, loaded(refused=7))
    assert (refusing.verdict, refusing.reason) == (Verdict.INCONCLUSIVE, "LoadNotBorne")
    assert refusing.message == (
        "all gates pass, but the candidate refused 7 of 301 requests as busy, above 2 %: lower "
        "`probe.requestsPerMinute`, or let it serve more, with larger batches or more GPUs"
    )
    missing = evaluate(ALL, ANALYSIS, loaded(missed=100))
    assert missing.reason == "LoadNotBorne"
    assert "was offered 394 requests by the probe and left 100 unserved" in missing.message
    both = evaluate(ALL, ANALYSIS, loaded(refused=7, missed=100))
    assert "left 100 unserved, because too many were open and refused 7 of" in both.message
    # And it still fails
    assert evaluate(ALL, ANALYSIS, loaded(missed=100, slow=90)).verdict is Verdict.FAIL


def test_refusals_of_the_warm_up_do_not_count() -> None:
    given = replace(loaded(refused=50), baseline=replace(counters(0), refused=50))
    assert evaluate(ALL, ANALYSIS, given).verdict is Verdict.PASS


def test_requests_that_are_needed_come_after_all_that_were_made() -> None:
    # Given a comparison that began anew when 280 of at most 300 requests were made
    late = Comparison(arm(40, seconds=1.04), arm(40))
    given = evidence(arm(280, seconds=1.04), comparison=late)
    (result,) = evaluate([LATENCY_VS_STABLE], ANALYSIS, given).results
    assert result.needed is not None
    assert 20 < result.needed < 300 - 40
    assert "more than the 300 requests of `analysis.maxRequests`" in result.message


def test_a_gate_that_only_observes_never_decides() -> None:
    slow = evidence(counters(120, slow=100))
    assessment = evaluate([observed(LATENCY), MEMORY], ANALYSIS, slow)
    assert assessment.verdict is Verdict.PASS
    assert assessment.results[0].verdict is Verdict.FAIL
    assert assessment.results[0].to_status().message.startswith("only observed: ")
    # And when nothing is enforced, nothing passes
    alone = evaluate([observed(MEMORY)], ANALYSIS, evidence(counters(120)))
    assert (alone.verdict, alone.reason) == (Verdict.INVALID, "NoEnforcedGate")


def test_the_error_budget_is_split_for_fail_and_not_for_pass() -> None:
    # Given just enough slow requests to fail one gate alone, and just enough to pass it
    just_failing, just_passing = evidence(counters(60, slow=10)), evidence(counters(72))
    assert evaluate([LATENCY], ANALYSIS, just_failing).results[0].verdict is Verdict.FAIL
    together = evaluate(ALL, ANALYSIS, just_failing)
    assert together.results[0].verdict is Verdict.INCONCLUSIVE
    assert evaluate(ALL, ANALYSIS, just_passing).results[0].verdict is Verdict.PASS
    # And stages share it, too: each begins its evidence anew
    alone = evaluate([LATENCY], ANALYSIS, just_failing, stages=5)
    assert alone.results[0].verdict is Verdict.INCONCLUSIVE
    assert evaluate([LATENCY], ANALYSIS, just_passing, stages=5).verdict is Verdict.PASS


def test_a_kind_of_gate_from_the_future_never_passes() -> None:
    unknown = Gate.model_validate({"name": "typography", "textAccuracy": {"minPercent": 90}})
    assessment = evaluate([unknown], ANALYSIS, evidence(counters(120)))
    assert (assessment.verdict, assessment.reason) == (Verdict.INVALID, "UnknownGateKind")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (evidence(None, probe=None), "NoSeries"),
        (evidence(counters(120), baseline=None), "WarmingUp"),
        (evidence(counters(120), baseline=counters(10, pod="another")), "PodChanged"),
        (evidence(counters(120), baseline=counters(121)), "CounterReset"),
        (evidence(replace(counters(120), busy_seconds=math.nan)), "NotACounter"),
        (evidence(replace(counters(120), images=10**5000)), "NotACounter"),
        (evidence(replace(counters(120), peak_memory_share=10**5000)), "NotACounter"),
    ],
)
def test_without_comparable_counters_nothing_is_judged(given: Evidence, reason: str) -> None:
    counting = [gate for gate in ALL if gate is not STABILITY]
    assessment = evaluate(counting, ANALYSIS, given)
    assert assessment.verdict in (Verdict.INVALID, Verdict.INCONCLUSIVE)
    assert {result.reason for result in assessment.results} == {reason}
    assert assessment.requests == 0


def test_the_known_cause_of_missing_counters_is_told() -> None:
    given = evidence(None, problem="pod a/b: two series of imagegen_images_total")
    assert "two series" in evaluate([LATENCY], ANALYSIS, given).message


def test_only_what_came_after_the_warm_up_counts() -> None:
    # Given a warm-up with many slow requests, and none after it
    warm = counters(40, slow=40)
    later = replace(counters(140, slow=40), within={500: 0, 1700: 100, 3000: 140})
    assessment = evaluate([LATENCY], ANALYSIS, evidence(later, baseline=warm))
    assert assessment.verdict is Verdict.PASS
    assert assessment.requests == 100


def test_limits_become_edges_once_each_and_in_order() -> None:
    other = Gate.model_validate(
        {"name": "latency-p50", "latency": {"percentile": 50, "maxMilliseconds": 250}}
    )
    again = LATENCY.model_copy(update={"name": "again"})
    assert latency_edges([LATENCY, COST, other, again]) == [250, 1700]


def test_the_status_of_a_gate_fits_the_schema() -> None:
    for requests in (0, 5, 120):
        for result in evaluate(ALL, ANALYSIS, evidence(counters(requests))).results:
            status = result.to_status()
            assert GateStatus.model_validate(status.to_api()) == status
            assert status.verdict == result.verdict.value
            assert (status.reason, status.needed) == (result.reason, result.needed)


def test_what_takes_long_to_import_waits_for_the_first_verdict() -> None:
    code = (
        "import sys, modelrollout.gates.judge; "
        "print({'numpy', 'scipy'} & {name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"


# -- counters --------------------------------------------------------------------------------------
counts = st.integers(0, 2**53)
real_totals = st.builds(
    Totals,
    pod=st.just("a"),
    time=st.just(NOON),
    within=st.dictionaries(st.integers(1, 3_600_000), counts, max_size=10),
    **{
        item.name: st.floats(0, 1e12) if "seconds" in item.name else counts
        for item in fields(Totals)
        if item.name not in ("pod", "time", "within", "log_moments", "peak_memory_share")
    },
)


@given(real_totals)
def test_a_baseline_survives_its_way_through_status(totals: Totals) -> None:
    stored = totals.to_baseline(totals.within)
    read: Any = type(stored).model_validate(stored.to_api())
    assert Totals.from_baseline(read) == totals


@given(real_totals)
def test_nothing_happened_since_now(totals: Totals) -> None:
    nothing = totals.since(totals)
    assert (nothing.succeeded, nothing.busy_seconds, nothing.timed) == (0, 0.0, 0)
    assert set(nothing.within.values()) <= {0}


def test_a_counter_that_went_back_is_named() -> None:
    with pytest.raises(Incomparable, match="'images' of pod campaign-images-1 went back") as error:
        replace(counters(5), images=4).since(counters(5))
    assert error.value.reason == "CounterReset"
