"""What befalls stable at the same time is not the candidate's fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.gates.common_cause import FEWEST_REQUESTS
from modelrollout.gates.judge import evaluate
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    ANALYSIS,
    ERRORS,
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
    assert found(LATENCY, beside(arm(60, slow=40), at_limit)).verdict is Verdict.FAIL
    assert found(LATENCY, beside(arm(60, slow=40), beyond)).reason == "CommonCause"
    # Given so few requests of stable that one slow one is a large share
    few = arm(FEWEST_REQUESTS - 1, slow=1)
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


def test_an_allowed_event_at_stable_excuses_no_candidate_beyond_the_limit() -> None:
    lenient = Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 2}})
    assert found(lenient, beside(arm(60, ooms=3), arm(60, ooms=2))).verdict is Verdict.FAIL
    assert found(lenient, beside(arm(60, ooms=3), arm(60, ooms=3))).reason == "CommonCause"


def test_a_relative_gate_still_tells_a_candidate_that_is_worse_than_a_bad_stable() -> None:
    relative = Gate.model_validate({"name": "relative", "latency": {"maxIncreasePercent": 10}})
    given = beside(arm(100, seconds=3.0, slow=100), arm(100, slow=20))
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
