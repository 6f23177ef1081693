"""What befalls stable at the same time is not the candidate's fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.gates.common_cause import ENOUGH_AT_STABLE
from modelrollout.gates.evidence import ProbeTotals
from modelrollout.gates.judge import evaluate
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import GateResult, Verdict
from tests.unit.gates.judging import (
    ANALYSIS,
    ERRORS,
    GPU_MEMORY,
    LATENCY,
    MEMORY,
    NOTHING,
    STABILITY,
    arm,
    beside,
    evidence,
    found,
)

ABSOLUTE = (LATENCY, ERRORS, MEMORY)
BAD: dict[str, dict[str, Any]] = {
    LATENCY.name: {"slow": 40},
    ERRORS.name: {"failed": 40},
    MEMORY.name: {"ooms": 1},
}


@pytest.mark.parametrize("gate", ABSOLUTE, ids=lambda gate: gate.name)
def test_a_candidate_is_not_blamed_for_what_stable_suffers_too(gate: Gate) -> None:
    candidate, stable = arm(60, **BAD[gate.name]), arm(60, **BAD[gate.name])
    result = found(gate, beside(candidate, stable))
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "CommonCause")
    assert result.message.endswith("a common cause, for which the candidate is not blamed")
    assert result.needed is None
    # And with a sound stable it is
    assert found(gate, beside(candidate, arm(60))).verdict is Verdict.FAIL
    # As without any counters of stable
    assert found(gate, evidence(candidate)).verdict is Verdict.FAIL


def test_the_numbers_of_both_arms_are_told() -> None:
    assert found(LATENCY, beside(arm(60, slow=40), arm(90, slow=30))).message == (
        "40 of 60 slower than 1700 ms, limit 5 %, and at stable 30 of 90 slower than 1700 ms "
        "in the same time: a common cause, for which the candidate is not blamed"
    )
    assert found(MEMORY, beside(arm(60, ooms=1), arm(60, ooms=2))).message == (
        "out of memory once (1 in the server, 0 by the kernel), limit 0, and stable 2 times in the "
        "same time: a common cause, for which the candidate is not blamed"
    )


def test_a_share_at_the_limit_or_of_a_few_requests_excuses_nothing() -> None:
    # Given stable exactly at the limit of 5 %, and one request beyond it
    at_limit, beyond = arm(100, slow=5), arm(100, slow=6)
    assert found(LATENCY, beside(arm(60, slow=12), at_limit)).verdict is Verdict.FAIL
    assert found(LATENCY, beside(arm(60, slow=12), beyond)).reason == "CommonCause"
    # Given so few requests of stable that one slow one is a large share
    few = arm(ENOUGH_AT_STABLE - 1, slow=1)
    assert found(LATENCY, beside(arm(60, slow=40), few)).verdict is Verdict.FAIL
    # Unless they prove it
    assert found(LATENCY, beside(arm(60, slow=40), replace(few, within={1700: 0}))).reason == (
        "CommonCause"
    )


def test_stable_with_other_edges_excuses_by_what_its_edges_show() -> None:
    # Given a stable that was started before the limit of 1700 ms was declared
    def stable(within_two_seconds: int) -> Totals:
        return replace(arm(100), within={500: 0, 2000: within_two_seconds})

    slow = arm(60, slow=40)
    assert found(LATENCY, beside(slow, stable(90))).reason == "CommonCause"
    assert "10 of 100 slower than 2000 ms" in found(LATENCY, beside(slow, stable(90))).message
    assert found(LATENCY, beside(slow, stable(100))).verdict is Verdict.FAIL
    # And where only edges below the limit are known, nothing is
    assert found(LATENCY, beside(slow, replace(arm(100), within={500: 0}))).verdict is Verdict.FAIL


def test_a_common_cause_is_no_licence_to_run_out_of_memory_all_the_time() -> None:
    # Given one event in a thousand requests of stable, and one in two of the candidate's
    result = found(MEMORY, beside(arm(60, ooms=30), arm(1000, ooms=1)))
    assert (result.verdict, result.reason) == (Verdict.FAIL, "OutOfMemory")
    # And where stable is allowed a rate, its multiple decides
    twice = Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 0}})
    often = Gate.model_validate(
        {"name": "oom", "outOfMemory": {"maxCount": 0, "maxTimesStable": 9}}
    )
    given = beside(arm(100, ooms=20), arm(100, ooms=4))
    assert found(twice, given).verdict is Verdict.FAIL
    assert found(often, given).reason == "CommonCause"


def test_only_events_in_the_time_of_the_comparison_are_excused() -> None:
    # Given a stable that ran out of memory once in the time of the comparison
    stable = arm(100, ooms=1)
    sound, ailing = arm(60), arm(60, ooms=1)
    assert found(MEMORY, beside(ailing, stable)).reason == "CommonCause"
    # When the candidate ran out during the repeats or the warm-up, before it
    for before in (1, 50):
        given = replace(beside(sound, stable), latest=arm(60, ooms=before))
        assert found(MEMORY, given).verdict is Verdict.FAIL
    # Even if stable had thousands of requests
    many = replace(beside(sound, arm(10_000, ooms=1)), latest=arm(60, ooms=50))
    assert found(MEMORY, many).verdict is Verdict.FAIL
    # Or once then and once since, or the kernel killed it
    assert found(MEMORY, replace(beside(ailing, stable), latest=arm(60, ooms=2))).verdict is (
        Verdict.FAIL
    )
    for candidate in (sound, ailing):
        killed = beside(candidate, stable, container_out_of_memory=1)
        assert found(MEMORY, killed).verdict is Verdict.FAIL


def test_a_candidate_that_is_clearly_worse_than_a_bad_stable_is_blamed() -> None:
    # Given a stable of which a tenth fails, and a candidate of which all do
    stable = arm(18, failed=2)
    result = found(ERRORS, beside(arm(0, failed=300), stable))
    assert (result.verdict, result.reason) == (Verdict.FAIL, "LimitExceeded")
    assert result.message.endswith("; at stable 2 of 20 failed in the same time, clearly fewer")
    assert found(LATENCY, beside(arm(0, failed=300), stable)).verdict is Verdict.FAIL
    # And one that may be as bad as stable, or seems worse because bad requests come in bursts
    assert found(ERRORS, beside(arm(240, failed=60), stable)).reason == "CommonCause"
    bursts = beside(arm(0, failed=300), stable, design_effects={"errors": 30.0})
    assert found(ERRORS, bursts).verdict is not Verdict.FAIL


def test_slow_answers_to_a_load_that_stable_was_spared_show_nobody_to_be_worse() -> None:
    def judged(missed: int) -> GateResult:
        load = ProbeTotals(8, 0.0, loading=True, stable_served=100, stable_missed=missed)
        return found(LATENCY, beside(arm(100, slow=90), arm(100, slow=20), probe=load))

    assert judged(0).verdict is Verdict.FAIL
    assert judged(100).reason == "CommonCause"


def test_the_excuse_is_judged_on_the_same_time_for_both() -> None:
    # Given a candidate that fails, and a comparison that began late
    latest, stable = arm(60, slow=40), arm(90, slow=30)
    late = replace(beside(arm(20, slow=10), stable), latest=latest)
    assert found(LATENCY, late).message == (
        "40 of 60 slower than 1700 ms, limit 5 %; since the comparison with stable began 10 of 20 "
        "slower than 1700 ms, and at stable 30 of 90 slower than 1700 ms in the same time: "
        "a common cause, for which the candidate is not blamed"
    )
    # And one in which only stable was slow, so that the candidate's cause is another
    other = replace(beside(arm(20), stable), latest=latest)
    assert found(LATENCY, other).verdict is Verdict.FAIL
    # And a candidate that was worse only before
    worse = replace(beside(arm(60, slow=20), stable), latest=arm(200, slow=160))
    assert found(LATENCY, worse).reason == "CommonCause"


@pytest.mark.parametrize("gate", [LATENCY, ERRORS], ids=lambda gate: gate.name)
def test_nobody_is_blamed_while_nothing_is_known_of_stable(gate: Gate) -> None:
    candidate = arm(60, **BAD[gate.name])
    result = found(gate, evidence(candidate, stable_silent=True))
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "StableUnknown")
    assert result.message.startswith("40 of ")
    assert result.message.endswith(
        "limit 5 %. But nothing is known of stable at the moment: "
        "a cause that strikes both is not ruled out"
    )
    # And what needs no excuse is not touched
    sound = arm(200)
    assert found(gate, evidence(sound, stable_silent=True)) == found(gate, evidence(sound))


def test_a_silent_stable_excuses_no_fact() -> None:
    silent = evidence(
        arm(60, ooms=1, peak=0.99), stable_silent=True, probe=ProbeTotals(8, 0.5, loading=True)
    )
    for gate in (MEMORY, GPU_MEMORY, STABILITY):
        assert found(gate, silent).verdict is Verdict.FAIL


def test_an_allowed_event_at_stable_excuses_no_candidate_beyond_the_limit() -> None:
    lenient = Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 2}})
    assert found(lenient, beside(arm(60, ooms=3), arm(60, ooms=2))).verdict is Verdict.FAIL
    assert found(lenient, beside(arm(60, ooms=3), arm(60, ooms=3))).reason == "CommonCause"


def test_a_relative_gate_still_tells_a_candidate_that_is_worse_than_a_bad_stable() -> None:
    relative = Gate.model_validate({"name": "relative", "latency": {"maxIncreasePercent": 10}})
    given = beside(arm(100, seconds=3.0, slow=30), arm(100, slow=20))
    assessment = evaluate([LATENCY, relative], ANALYSIS, given)
    assert [result.reason for result in assessment.results] == ["CommonCause", "LimitExceeded"]
    assert assessment.verdict is Verdict.FAIL


def test_a_common_cause_holds_all_gates() -> None:
    given = beside(arm(100, slow=30), arm(100, slow=30))
    assessment = evaluate([LATENCY, ERRORS, STABILITY], ANALYSIS, given)
    assert (assessment.verdict, assessment.reason) == (Verdict.INCONCLUSIVE, "CommonCause")


counts = st.integers(0, 300)


def arms(**more: Any) -> st.SearchStrategy[Totals]:
    return st.builds(
        lambda requests, slow, failed, ooms: arm(
            requests, slow=min(slow, requests), failed=failed, ooms=ooms
        ),
        counts,
        counts,
        st.integers(0, 60),
        st.integers(0, 3),
    )


@given(candidate=arms(), stable=arms(), gate=st.sampled_from(ABSOLUTE))
def test_stable_never_turns_anything_into_a_pass(
    candidate: Totals, stable: Totals, gate: Gate
) -> None:
    alone = found(gate, evidence(candidate))
    together = found(gate, beside(candidate, stable))
    if alone.verdict is Verdict.FAIL:
        assert together.verdict is Verdict.FAIL or together.reason == "CommonCause"
        assert together.verdict is not Verdict.PASS
    else:
        assert together == alone


@given(stable=arms(), gate=st.sampled_from(ABSOLUTE))
def test_a_common_cause_is_found_only_where_stable_is_beyond_the_limit(
    stable: Totals, gate: Gate
) -> None:
    result = found(gate, beside(arm(100, slow=60, failed=60, ooms=1), stable))
    requests = stable.timed + stable.failed
    beyond = {
        LATENCY.name: requests - stable.within[1700] > 0.05 * requests,
        ERRORS.name: stable.failed > 0.05 * requests,
        MEMORY.name: stable.out_of_memory > 0,
    }
    assert beyond[gate.name] or result.reason != "CommonCause"


def test_a_stable_without_requests_excuses_nothing() -> None:
    for stable in (arm(0), NOTHING):
        assert found(LATENCY, beside(arm(60, slow=40), stable)).verdict is Verdict.FAIL
