"""Gates that decide without statistics: GPU memory, queries, deviations of pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import QueryGate, StabilityGate, StabilityKind
from modelrollout.gates.evidence import Deviations, Evidence
from modelrollout.gates.facts import told_apart
from modelrollout.gates.stability import FEWEST_PROMPTS
from modelrollout.gates.verdict import Finding, Verdict
from tests.unit.gates.judging import GPU_MEMORY, arm, counters, evidence, found, judged

QUEUE = QueryGate(template="queue-depth", max="20")


# -- GPU memory ------------------------------------------------------------------------------------
def test_one_peak_beyond_the_limit_fails_at_once() -> None:
    # Given one request, and even while the warm-up lasts
    for changes in ({}, {"baseline": None}):
        result = found(GPU_MEMORY, evidence(arm(1, peak=0.9201), **changes))
        assert result.verdict is Verdict.FAIL
        assert result.message == "peak of 92.01 % of the GPU's memory, limit 92 %: exceeded"


def test_a_peak_within_the_limit_passes_at_the_minimum() -> None:
    early = found(GPU_MEMORY, evidence(arm(29, peak=0.92)))
    assert (early.verdict, early.needed) == (Verdict.INCONCLUSIVE, 1)
    assert "passes at 30 requests (`analysis.minRequests`)" in early.message
    result = found(GPU_MEMORY, evidence(arm(30, peak=0.92)))
    assert result.verdict is Verdict.PASS
    assert (result.estimate, result.limit, result.n) == ("92 %", "<= 92 %", 30)


def test_a_server_without_gpu_memory_is_not_judged_by_it() -> None:
    result = found(GPU_MEMORY, evidence(arm(100, peak=None)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NoDeviceMemory")
    assert "runs on a CPU" in result.message
    assert found(GPU_MEMORY, evidence(None)).reason == "NoSeries"


@pytest.mark.parametrize("peak", [math.nan, -0.1, 1.01, math.inf])
def test_a_peak_that_is_none_is_invalid(peak: float) -> None:
    assert found(GPU_MEMORY, evidence(arm(100, peak=peak))).verdict is Verdict.INVALID


@given(limit=st.floats(1e-6, 1e6), above=st.floats(1e-6, 1e6))
def test_a_number_beyond_a_limit_is_never_written_like_it(limit: float, above: float) -> None:
    for value in (limit + above, limit - above):
        if value != limit:
            written = float(told_apart(value, limit))
            assert written != limit
            assert (written > limit) is (value > limit)


def test_no_more_digits_are_written_than_it_takes() -> None:
    assert told_apart(92.004, 92) == "92.004"
    assert told_apart(92.4, 92) == "92.4"
    assert told_apart(91.96, 92) == "91.96"
    assert told_apart(92.0, 92) == "92"
    assert told_apart(0.002000001, 0.002) == "0.002000001"


# -- query -----------------------------------------------------------------------------------------
def asked(value: float | None, requests: int = 100) -> Finding:
    queries = {} if value is None else {"queue-depth": value}
    return judged(QUEUE, evidence(counters(requests), queries=queries))


def test_a_query_is_taken_at_its_word() -> None:
    assert asked(20.0).verdict is Verdict.PASS
    assert asked(20.0).message == "'queue-depth' is 20, limit 20, over 100 requests"
    assert asked(20.5).verdict is Verdict.FAIL
    assert asked(20.00001).message == "'queue-depth' is 20.00001, limit 20: exceeded"
    assert asked(20.5, requests=1).verdict is Verdict.FAIL
    assert asked(-3.0, requests=29).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400])
def test_a_query_without_a_number_is_invalid(value: float | None) -> None:
    assert asked(value).verdict is Verdict.INVALID


# -- stability -------------------------------------------------------------------------------------
def deviating(kind: StabilityKind, measured: Deviations | None) -> Finding:
    gate = StabilityGate(kind=kind, max="0.002")
    deviations = {} if measured is None else {kind: measured}
    return judged(gate, evidence(counters(60), deviations=deviations))


OTHERS = [kind for kind in StabilityKind if kind is not StabilityKind.REPEAT]


@pytest.mark.parametrize("kind", OTHERS)
def test_every_kind_of_deviation_has_its_own_measurement(kind: StabilityKind) -> None:
    assert deviating(kind, Deviations(FEWEST_PROMPTS, 0.002)).verdict is Verdict.PASS
    assert deviating(kind, Deviations(FEWEST_PROMPTS - 1, 0.0)).needed == 1
    assert deviating(kind, Deviations(1, 0.0021)).verdict is Verdict.FAIL
    missing = deviating(kind, None)
    assert (missing.verdict, missing.reason) == (Verdict.INVALID, "NothingMeasured")
    # And another kind's is not taken for it
    others: Evidence = replace(
        evidence(counters(60)),
        deviations={other: Deviations(20, 0.0) for other in StabilityKind if other is not kind},
    )
    assert judged(StabilityGate(kind=kind, max="0.002"), others).reason == "NothingMeasured"


def test_kinds_are_told_apart_in_words() -> None:
    said = {kind: deviating(kind, Deviations(9, 0.001)).message for kind in OTHERS}
    assert said[StabilityKind.BATCH] == (
        "pictures made alone and in a batch differ by at most 0.001 over 9 prompts, limit 0.002"
    )
    assert len(set(said.values())) == len(OTHERS)


@pytest.mark.parametrize("largest", [math.nan, -0.1, 1.1, math.inf])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_deviation_that_is_none_is_invalid(kind: StabilityKind, largest: float) -> None:
    assert deviating(kind, Deviations(9, largest)).verdict is Verdict.INVALID
