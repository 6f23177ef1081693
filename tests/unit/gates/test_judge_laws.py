"""Laws of the verdict over all gates: what order and worse evidence may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.base import ApiModel
from modelrollout.api.gate_types import (
    CostGate,
    Gate,
    GateMode,
    LatencyGate,
    TextAccuracyGate,
)
from modelrollout.gates.evidence import (
    Comparison,
    Evidence,
)
from modelrollout.gates.judge import KINDS, evaluate
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.every import EVERY, NAMES, good
from tests.unit.gates.judging import (
    ALL,
    ANALYSIS,
    ERRORS,
    LATENCY,
    arm,
    counters,
    evidence,
    judged,
)


def test_a_good_candidate_passes_every_kind_of_gate() -> None:
    assessment = evaluate(EVERY, ANALYSIS, good())
    assert {result.name: result.verdict for result in assessment.results} == dict.fromkeys(
        NAMES, Verdict.PASS
    )
    assert {type(gate.criterion) for gate in EVERY} == set(KINDS)


# -- what is needed --------------------------------------------------------------------------------
def _without_log_moments(given: Evidence) -> Evidence:
    assert given.comparison is not None
    return replace(
        given,
        comparison=Comparison(
            replace(given.comparison.candidate, log_moments={}),
            replace(given.comparison.stable, log_moments={}),
        ),
    )


def _without_device_memory(given: Evidence) -> Evidence:
    assert given.latest is not None
    return replace(given, latest=replace(given.latest, peak_memory_share=None))


WITHOUT: dict[str, Callable[[Evidence], Evidence]] = {
    "requests": lambda given: replace(given, baseline=None),
    "comparison": lambda given: replace(given, comparison=None),
    "log moments": _without_log_moments,
    "device memory": _without_device_memory,
    "repeats": lambda given: replace(given, probe=None),
    "deviations": lambda given: replace(given, deviations={}),
    "text accuracy": lambda given: replace(given, text_accuracy=None),
    "queries": lambda given: replace(given, queries={}),
}
NEEDED = {
    "latency-p95": {"requests"},
    "errors": {"requests"},
    "oom": {"requests"},
    "cost": {"requests"},
    "repeatable": {"repeats"},
    "gpu-memory": {"requests", "device memory"},
    "latency-vs-stable": {"requests", "comparison", "log moments"},
    "cost-vs-stable": {"requests", "comparison"},
    "oom-vs-stable": {"requests", "comparison"},
    "typography": {"text accuracy"},
    "typography-drop": {"text accuracy"},
    "queue": {"requests", "queries"},
    "batch": {"deviations"},
}


@pytest.mark.parametrize("missing", WITHOUT)
@pytest.mark.parametrize("gate", EVERY, ids=NAMES)
def test_a_gate_needs_the_evidence_that_it_judges_and_no_other(gate: Gate, missing: str) -> None:
    criterion: Any = gate.criterion
    finding = judged(criterion, WITHOUT[missing](good()))
    if missing in NEEDED[gate.name]:
        assert finding.verdict in (Verdict.INVALID, Verdict.INCONCLUSIVE)
    else:
        assert finding == judged(criterion, good())


@pytest.mark.parametrize("criterion", [LatencyGate(), CostGate(), TextAccuracyGate()])
def test_a_form_from_the_future_never_passes(criterion: ApiModel) -> None:
    # Given a kind that this version knows, and a limit in it that it does not know
    assert judged(criterion, good()).reason == "UnknownGateKind"


# -- what only observes ----------------------------------------------------------------------------
@given(
    candidate=st.builds(
        arm,
        st.integers(0, 400),
        seconds=st.floats(0.1, 10),
        failed=st.integers(0, 50),
        ooms=st.integers(0, 2),
    ),
    watched=st.sampled_from(EVERY),
)
def test_a_gate_that_observes_decides_nothing(candidate: Totals, watched: Gate) -> None:
    given = replace(good(), latest=candidate, comparison=Comparison(candidate, arm(250)))
    observed = watched.model_copy(update={"mode": GateMode.OBSERVE, "name": "watched"})
    alone = evaluate([ERRORS], ANALYSIS, given)
    beside_it = evaluate([ERRORS, observed], ANALYSIS, given)
    assert beside_it.results[0] == alone.results[0]
    assert (beside_it.verdict, beside_it.message) == (alone.verdict, alone.message)


# -- worse evidence --------------------------------------------------------------------------------
@given(st.permutations(EVERY), st.integers(0, 400), st.floats(0, 0.3), st.floats(0.5, 3))
def test_the_order_of_gates_changes_no_verdict(
    order: list[Gate], requests: int, slow: float, seconds: float
) -> None:
    candidate = arm(requests, slow=round(requests * slow), seconds=seconds)
    given = replace(good(), latest=candidate, comparison=Comparison(candidate, arm(250)))
    straight, mixed = evaluate(EVERY, ANALYSIS, given), evaluate(order, ANALYSIS, given)
    assert mixed.verdict is straight.verdict
    assert {item.name: item for item in mixed.results} == {
        item.name: item for item in straight.results
    }


@given(
    requests=st.integers(0, 2000),
    slow=st.floats(0, 1),
    failed=st.integers(0, 200),
    more=st.integers(0, 50),
)
def test_worse_evidence_never_turns_fail_into_pass(
    requests: int, slow: float, failed: int, more: int
) -> None:
    k = round(requests * slow)
    before = evaluate(ALL, ANALYSIS, evidence(counters(requests, slow=k, failed=failed)))
    worse = counters(requests, slow=min(requests, k + more), failed=failed + more, ooms=more)
    after = evaluate(ALL, ANALYSIS, evidence(worse))
    if before.verdict is Verdict.FAIL:
        assert after.verdict is Verdict.FAIL
    if after.verdict is Verdict.PASS:
        assert before.verdict is Verdict.PASS


@given(requests=st.integers(0, 2000), slow=st.floats(0, 1), failed=st.integers(0, 2000))
def test_to_fail_is_as_bad_as_to_be_slow(requests: int, slow: float, failed: int) -> None:
    k = round(requests * slow)
    fast_failures = evidence(counters(requests, slow=k, failed=failed))
    slow_answers = evidence(counters(requests + failed, slow=k + failed))
    (failing,) = evaluate([LATENCY], ANALYSIS, fast_failures).results
    (slowing,) = evaluate([LATENCY], ANALYSIS, slow_answers).results
    assert replace(failing, message="") == replace(slowing, message="")


@given(
    requests=st.integers(0, 2000),
    slow=st.floats(0, 1),
    failed=st.integers(0, 2000),
    more=st.integers(0, 2000),
)
def test_further_failures_never_improve_a_latency(
    requests: int, slow: float, failed: int, more: int
) -> None:
    order = [Verdict.INVALID, Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    k = round(requests * slow)

    def judged(failures: int) -> int:
        given = evidence(counters(requests, slow=k, failed=failures))
        return order.index(evaluate([LATENCY], ANALYSIS, given).results[0].verdict)

    assert judged(failed + more) >= judged(failed)
