"""What garbage in the evidence may do to a verdict: nothing but make it Invalid."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate, StabilityKind
from modelrollout.api.status import GateStatus
from modelrollout.gates.evidence import (
    Comparison,
    Deviations,
    Evidence,
    PairedScores,
    ProbeTotals,
)
from modelrollout.gates.judge import Assessment, evaluate
from modelrollout.gates.totals import Incomparable, LogMoments, Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.every import EVERY, NAMES, good
from tests.unit.gates.judging import (
    ANALYSIS,
    ERRORS,
    NOON,
    RELATIVE,
    arm,
    counters,
)

amounts = st.one_of(st.floats(), st.integers(), st.sampled_from([10**400, 10**5000]))
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
        stable_served=amounts,
        stable_missed=amounts,
        candidate_served=amounts,
        candidate_missed=amounts,
    ),
    container_out_of_memory=amounts,
    gpu_hour_price=st.decimals(),
    gpu_count=st.integers(),
    stable_gpu_hour_price=st.none() | st.decimals(),
    stable_gpu_count=st.none() | amounts,
    comparison=st.none() | st.builds(Comparison, garbage, garbage, stable_pods=amounts),
    stable_silent=st.booleans(),
    design_effects=st.dictionaries(
        st.sampled_from(["errors", "latency:1700", "log_seconds", "cost"]), amounts
    ),
    declared_share=st.none() | amounts,
    deviations=st.dictionaries(
        st.sampled_from(StabilityKind), st.builds(Deviations, amounts, st.none() | amounts)
    ),
    text_accuracy=st.none() | st.builds(PairedScores, candidate=scores, stable=scores),
    queries=st.dictionaries(st.just("queue-depth"), amounts),
)


def _grew(given: Evidence) -> bool:
    """Tell whether the candidate's counters are counters, and grew by enough requests."""
    if given.baseline is None or given.latest is None:
        return False
    try:
        measured = given.latest.since(given.baseline)
    except Incomparable:
        return False
    return measured.succeeded + measured.failed >= ANALYSIS.min_requests


def _partly_good(given: Evidence, kept: list[str]) -> Evidence:
    """Good evidence in which the named parts are garbage."""
    return replace(good(), **{name: getattr(given, name) for name in kept})


@given(garbage_evidence, st.lists(st.sampled_from([item.name for item in fields(Evidence)])))
def test_garbage_never_raises_and_never_passes_unless_it_is_evidence(
    spoilt: Evidence, spoiled: list[str]
) -> None:
    for each in (spoilt, _partly_good(spoilt, spoiled)):
        assessment = evaluate(EVERY, ANALYSIS, each)
        verdicts = {result.name: result.verdict for result in assessment.results}
        if not _grew(each):
            counting = {name for name, verdict in verdicts.items() if verdict is Verdict.PASS}
            assert counting <= {"repeatable", "batch", "typography", "typography-drop"}
        if each.probe is None:
            assert verdicts["repeatable"] is Verdict.INVALID
        if each.comparison is None:
            relative = [verdicts[gate.name] for gate in RELATIVE]
            assert Verdict.PASS not in relative
            assert verdicts["latency-vs-stable"] is not Verdict.FAIL
        if each.stable_silent:
            assert verdicts["latency-p95"] is not Verdict.FAIL
            assert verdicts["errors"] is not Verdict.FAIL
        if assessment.verdict is Verdict.PASS:
            assert set(verdicts.values()) == {Verdict.PASS}
        check_status(assessment)


def check_status(assessment: Assessment) -> None:
    for result in assessment.results:
        status = result.to_status()
        assert GateStatus.model_validate(status.to_api()) == status


NONSENSE: dict[str, Any] = {
    "NaN": math.nan,
    "infinite": math.inf,
    "negative infinite": -math.inf,
    "negative": -1,
    "huge": 10**400,
    "negative huge": -(10**400),
    "of more digits than Python prints": 10**5000,
    "text": "9",
    "None": None,
}
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
        case "comparison":
            pods: Any = {what: value}
            return replace(given, comparison=replace(given.comparison, **pods))
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
    *(f"probe.{arm}_{what}" for arm in ("candidate", "stable") for what in ("served", "missed")),
    "comparison.stable_pods",
    *(
        "design_effects.errors",
        "design_effects.latency:1700",
        "design_effects.log_seconds",
        "design_effects.cost",
    ),
    *("deviations.prompts", "deviations.largest"),
    *("text_accuracy.candidate", "text_accuracy.stable", "queries.queue-depth"),
    *("container_out_of_memory", "declared_share", "gpu_count", "stable_gpu_count"),
)


def _means_something(place: str, value: Any) -> bool:
    """Tell whether a value may stand in a place, or no gate looks at that place."""
    if place in ("candidate.peak_memory_share", "stable.peak_memory_share"):
        return True
    if value is None:  # nothing is declared, or nothing is different
        return place in ("declared_share", "stable_gpu_count")
    return place == "queries.queue-depth" and value == -1


@pytest.mark.parametrize("place", PLACES)
def test_nonsense_in_one_place_is_neither_blamed_nor_overlooked(place: str) -> None:
    for name, value in NONSENSE.items():
        assessment = evaluate(EVERY, ANALYSIS, _spoiled(good(), place, value))
        verdicts = {assessment.verdict, *(result.verdict for result in assessment.results)}
        assert Verdict.FAIL not in verdicts, name
        assert Verdict.INVALID in verdicts or _means_something(place, value), name


@pytest.mark.parametrize("gate", EVERY, ids=NAMES)
def test_a_gate_alone_neither_fails_on_nonsense_nor_raises(gate: Gate) -> None:
    """No other gate is there that keeps the verdict from resting on what is nonsense."""
    spoiled = [_spoiled(good(), place, value) for place in PLACES for value in NONSENSE.values()]
    spoiled += [replace(good(), **changes) for changes in ODD.values()]
    assert evaluate([gate], ANALYSIS, good()).verdict is Verdict.PASS
    for evidence in spoiled:
        assert evaluate([gate], ANALYSIS, evidence).verdict is not Verdict.FAIL


def test_nothing_passes_beside_a_probe_that_is_none() -> None:
    for what in ("none", ProbeTotals(12, 0.0, loading=True, candidate_missed=10**5000)):
        probe: Any = what
        assessment = evaluate([ERRORS], ANALYSIS, replace(good(), probe=probe))
        assert assessment.results[0].verdict is Verdict.PASS
        assert assessment.verdict is Verdict.INVALID
        assert len(assessment.message) < 200


NONE: Any = None
ODD: dict[str, dict[str, Any]] = {
    "within": {"latest": replace(counters(250), within=NONE)},
    "baseline": {"baseline": "none"},
    "probe": {"probe": "none"},
    "log moments": {"comparison": Comparison(replace(arm(250), log_moments=NONE), arm(250))},
    "stable": {"comparison": Comparison(arm(250), NONE)},
    "comparison": {"comparison": 3},
    "effects": {"design_effects": None},
    "deviations": {"deviations": None},
    "scores": {"text_accuracy": PairedScores(candidate=NONE)},
    "queries": {"queries": None},
    "price": {"gpu_hour_price": None},
    "GPUs": {"gpu_count": None},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_evidence_is_invalid(odd: str) -> None:
    assessment = evaluate(EVERY, ANALYSIS, replace(good(), **ODD[odd]))
    assert assessment.verdict is Verdict.INVALID
    assert Verdict.FAIL not in {result.verdict for result in assessment.results}
    check_status(assessment)


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
