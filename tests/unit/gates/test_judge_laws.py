"""Laws of the verdict over all gates: what garbage, order and worse evidence may change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
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
    QueryGate,
    StabilityGate,
    StabilityKind,
    TextAccuracyGate,
)
from modelrollout.api.status import GateStatus
from modelrollout.gates.evidence import (
    Comparison,
    Deviations,
    Evidence,
    PairedScores,
    ProbeTotals,
)
from modelrollout.gates.judge import KINDS, evaluate, evidence_needed
from modelrollout.gates.kind import Need
from modelrollout.gates.totals import LogMoments, Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    ALL,
    ANALYSIS,
    ERRORS,
    GPU_MEMORY,
    LATENCY,
    NOON,
    RELATIVE,
    arm,
    beside,
    counters,
    evidence,
    judged,
)


class FutureGate(Gate):
    """A gate with the kinds that the custom resource does not have yet."""

    text_accuracy: TextAccuracyGate | None = None
    query: QueryGate | None = None


FUTURE = (
    FutureGate(name="typography", text_accuracy=TextAccuracyGate(min_percent=80)),
    FutureGate(name="typography-drop", text_accuracy=TextAccuracyGate(max_drop_percent=10)),
    FutureGate(name="queue", query=QueryGate(template="queue-depth", max="20")),
    FutureGate(name="batch", stability=StabilityGate(kind=StabilityKind.BATCH, max="0.002")),
)
EVERY = (*ALL, GPU_MEMORY, *RELATIVE, *FUTURE)
NAMES = [gate.name for gate in EVERY]


def good(requests: int = 250) -> Evidence:
    """Evidence on which every gate passes."""
    prompts = {f"p{index}": [0.97] for index in range(200)}
    return beside(
        arm(requests),
        arm(requests),
        design_effects={"errors": 1.0, "latency:1700": 1.1, "log_seconds": 1.2},
        declared_share=0.5,
        deviations={StabilityKind.BATCH: Deviations(9, 0.001)},
        text_accuracy=PairedScores(candidate=prompts, stable=prompts),
        queries={"queue-depth": 3.0},
        stable_gpu_hour_price=Decimal("3.60"),
        stable_gpu_count=1,
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


WITHOUT: dict[Need, Callable[[Evidence], Evidence]] = {
    Need.REQUESTS: lambda given: replace(given, baseline=None),
    Need.COMPARISON: lambda given: replace(given, comparison=None),
    Need.LOG_MOMENTS: _without_log_moments,
    Need.DEVICE_MEMORY: _without_device_memory,
    Need.REPEATS: lambda given: replace(given, probe=None),
    Need.DEVIATIONS: lambda given: replace(given, deviations={}),
    Need.TEXT_ACCURACY: lambda given: replace(given, text_accuracy=None),
    Need.QUERIES: lambda given: replace(given, queries={}),
}


@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("gate", EVERY, ids=NAMES)
def test_a_gate_needs_the_evidence_that_it_says_and_no_other(gate: Gate, need: Need) -> None:
    criterion: Any = gate.criterion
    finding = judged(criterion, WITHOUT[need](good()))
    if need in KINDS[type(criterion)].needs(criterion):
        assert finding.verdict in (Verdict.INVALID, Verdict.INCONCLUSIVE)
    else:
        assert finding == judged(criterion, good())


def test_what_is_needed_is_that_of_all_gates() -> None:
    assert evidence_needed([LATENCY, GPU_MEMORY]) == {Need.REQUESTS, Need.DEVICE_MEMORY}
    assert Need.COMPARISON in evidence_needed(EVERY)
    unknown = Gate.model_validate({"name": "new", "somethingNew": {}})
    assert evidence_needed([unknown]) == set()


@pytest.mark.parametrize("criterion", [LatencyGate(), CostGate(), TextAccuracyGate()])
def test_a_form_from_the_future_never_passes(criterion: ApiModel) -> None:
    # Given a kind that this version knows, and a limit in it that it does not know
    assert judged(criterion, good()).reason == "UnknownGateKind"


# -- garbage ---------------------------------------------------------------------------------------
amounts = st.one_of(st.floats(), st.integers(), st.just(10**400))
moments = st.builds(LogMoments, count=amounts, total=amounts, squares=amounts)
garbage = st.builds(
    Totals,
    pod=st.sampled_from(["a", "b"]),
    time=st.just(NOON),
    within=st.dictionaries(st.integers(), amounts, max_size=3),
    log_moments=st.dictionaries(st.sampled_from(["", "a", "b"]), moments, max_size=3),
    peak_memory_share=st.none() | amounts,
    **{
        item.name: amounts
        for item in fields(Totals)
        if item.name not in ("pod", "time", "within", "log_moments", "peak_memory_share")
    },
)
scores = st.dictionaries(st.sampled_from("abc"), st.lists(amounts, max_size=3), max_size=3)
garbage_evidence = st.builds(
    Evidence,
    baseline=st.none() | garbage,
    latest=st.none() | garbage,
    probe=st.none()
    | st.builds(
        ProbeTotals,
        repeat_prompts=amounts,
        repeat_deviation=st.none() | amounts,
        loading=st.booleans(),
    ),
    container_out_of_memory=amounts,
    gpu_hour_price=st.decimals(),
    gpu_count=st.integers(),
    stable_gpu_hour_price=st.none() | st.decimals(),
    stable_gpu_count=st.none() | amounts,
    comparison=st.none() | st.builds(Comparison, garbage, garbage),
    design_effects=st.dictionaries(
        st.sampled_from(["errors", "latency:1700", "log_seconds"]), amounts
    ),
    declared_share=st.none() | amounts,
    deviations=st.dictionaries(
        st.sampled_from(StabilityKind), st.builds(Deviations, amounts, st.none() | amounts)
    ),
    text_accuracy=st.none() | st.builds(PairedScores, candidate=scores, stable=scores),
    queries=st.dictionaries(st.just("queue-depth"), amounts),
)


@given(garbage_evidence)
def test_garbage_never_raises_and_never_passes_unless_it_is_evidence(given: Evidence) -> None:
    assessment = evaluate(EVERY, ANALYSIS, given)
    if given.baseline is None or given.latest is None or given.probe is None:
        assert assessment.verdict is not Verdict.PASS
    for result in assessment.results:
        status = result.to_status()
        assert GateStatus.model_validate(status.to_api()) == status


NONSENSE = st.sampled_from([math.nan, math.inf, -math.inf, -1, 10**400, -(10**400)])
COUNTERS = [item.name for item in fields(Totals) if item.type in ("int", "float")]


def _spoiled_totals(totals: Totals, place: str, value: Any) -> Totals:
    if place == "within":
        return replace(totals, within=dict.fromkeys(totals.within, value))
    if place in ("count", "total", "squares"):
        spoiled: Any = {place: value}
        return replace(
            totals,
            log_moments={
                name: replace(moments, **spoiled) for name, moments in totals.log_moments.items()
            },
        )
    changes: Any = {place: value}
    return replace(totals, **changes)


def _spoiled(given: Evidence, place: str, value: Any) -> Evidence:
    """Good evidence with nonsense in one place of it."""
    assert given.latest is not None
    assert given.comparison is not None
    where, _, what = place.partition(".")
    match where:
        case "latest":
            return replace(given, latest=_spoiled_totals(given.latest, what, value))
        case "candidate" | "stable":
            spoiled = _spoiled_totals(getattr(given.comparison, where), what, value)
            arms: Any = {where: spoiled}
            return replace(given, comparison=replace(given.comparison, **arms))
        case "probe":
            probe: Any = {what: value}
            return replace(given, probe=replace(given.probe, **probe))  # type: ignore[type-var]
        case "design_effects":
            return replace(given, design_effects={**given.design_effects, what: value})
        case "deviations":
            deviation: Any = {"prompts": 9, "largest": 0.001, what: value}
            return replace(given, deviations={StabilityKind.BATCH: Deviations(**deviation)})
        case "text_accuracy":
            one: Any = {
                "candidate": {"p0": [0.97]},
                "stable": {"p0": [0.97]},
                what: {"p0": [value]},
            }
            return replace(given, text_accuracy=PairedScores(**one))
        case "queries":
            return replace(given, queries={"queue-depth": value})
        case _:
            changes: Any = {where: value}
            return replace(given, **changes)


ARM_PLACES = (*COUNTERS, "peak_memory_share", "within", "count", "total", "squares")
PLACES = (
    *(f"{where}.{what}" for where in ("latest", "candidate", "stable") for what in ARM_PLACES),
    *("probe.repeat_prompts", "probe.repeat_deviation"),
    *("design_effects.errors", "design_effects.latency:1700", "design_effects.log_seconds"),
    *("deviations.prompts", "deviations.largest"),
    *("text_accuracy.candidate", "text_accuracy.stable", "queries.queue-depth"),
    *("container_out_of_memory", "declared_share", "gpu_count", "stable_gpu_count"),
)


@given(place=st.sampled_from(PLACES), value=NONSENSE)
def test_nonsense_in_one_place_is_neither_blamed_nor_overlooked(place: str, value: Any) -> None:
    # Peaks of both arms, and moments of the candidate's own counters, concern no gate.
    idle = {"candidate.peak_memory_share", "stable.peak_memory_share"}
    negative_query = place == "queries.queue-depth" and value == -1
    results = evaluate(EVERY, ANALYSIS, _spoiled(good(), place, value)).results
    verdicts = {result.verdict for result in results}
    assert Verdict.FAIL not in verdicts
    if place not in idle and not negative_query:
        assert Verdict.INVALID in verdicts


@pytest.mark.parametrize(
    "price",
    [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal(-1), Decimal("1e999999")],
)
def test_a_price_that_is_none_blames_nobody(price: Decimal) -> None:
    for changes in ({"gpu_hour_price": price}, {"stable_gpu_hour_price": price}):
        spoiled: Any = changes
        results = evaluate(EVERY, ANALYSIS, replace(good(), **spoiled)).results
        assert Verdict.INVALID in {result.verdict for result in results}
        assert Verdict.FAIL not in {result.verdict for result in results}


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
