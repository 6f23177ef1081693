"""Gates that could not pass even on perfect evidence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.gates.feasibility import infeasible_gate
from modelrollout.gates.judge import evaluate
from modelrollout.gates.sequential import FEWEST_REQUESTS
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    ALL,
    COST,
    ERRORS,
    LATENCY,
    MEMORY,
    STABILITY,
    counters,
    evidence,
)


def gate(**kind: Any) -> Gate:
    return Gate.model_validate({"name": "some", **kind})


def latency(percentile: int) -> Gate:
    return gate(latency={"percentile": percentile, "maxMilliseconds": 1700})


def errors(percent: str) -> Gate:
    return gate(errors={"maxPercent": percent})


def analysis(most: int, *, fewest: int = 1, confidence: int = 95) -> Analysis:
    return Analysis(min_requests=fewest, max_requests=most, confidence_percent=confidence)


@pytest.mark.parametrize(
    ("given", "fewest"),
    [
        (latency(95), 72),
        (latency(99), 367),
        (errors("5"), 72),
        (errors("10"), 35),
        (COST, FEWEST_REQUESTS),
        (MEMORY, 1),
        (STABILITY, 1),
    ],
    ids=["p95", "p99", "errors-5", "errors-10", "cost", "out-of-memory", "stability"],
)
def test_each_kind_can_pass_from_a_number_of_requests_on(given: Gate, fewest: int) -> None:
    assert infeasible_gate([given], analysis(fewest)) is None
    if fewest > 1:
        message = infeasible_gate([given], analysis(fewest - 1))
        assert message is not None
        assert message.startswith(f"gate '{given.name}' can never pass: it needs {fewest} requests")
        assert f"`analysis.maxRequests` is {fewest - 1}; raise that" in message


def test_a_cost_gate_says_what_its_requests_are_for() -> None:
    assert infeasible_gate([COST], analysis(10)) == (
        "gate 'cost' can never pass: it needs 30 requests for a mean that can be relied on, "
        "and `analysis.maxRequests` is 10; raise that, or relax the gate"
    )


def test_more_confidence_takes_more_requests() -> None:
    assert infeasible_gate([LATENCY], analysis(72, confidence=95)) is None
    assert infeasible_gate([LATENCY], analysis(72, confidence=99)) is not None


@pytest.mark.parametrize(
    ("percent", "words"),
    [
        ("0", "set `errors.maxPercent` above 0"),
        ("100", "set `errors.maxPercent` below 100"),
        ("250", "set `errors.maxPercent` below 100"),
        ("0.000000001", "`analysis.maxRequests` is 1000000; raise that, or relax the gate"),
    ],
)
def test_a_share_that_nothing_proves_is_refused(percent: str, words: str) -> None:
    message = infeasible_gate([errors(percent)], analysis(1_000_000))
    assert message is not None
    assert words in message


def test_memory_needs_the_declared_minimum() -> None:
    message = infeasible_gate([MEMORY], analysis(29, fewest=30))
    assert message is not None
    assert "`analysis.minRequests`" in message


def test_a_kind_of_gate_from_the_future_is_refused() -> None:
    message = infeasible_gate([gate(textAccuracy={"minPercent": 90})], analysis(300))
    assert message is not None
    assert "update the operator" in message


def test_a_gate_that_only_observes_is_nobodys_obstacle() -> None:
    observed = Gate.model_validate({**COST.to_api(), "mode": "Observe"})
    assert infeasible_gate([observed, STABILITY], analysis(10)) is None


def test_the_first_infeasible_gate_is_named() -> None:
    message = infeasible_gate([STABILITY, ERRORS, LATENCY], analysis(10))
    assert message is not None
    assert message.startswith("gate 'errors' can never pass")


@given(
    chosen=st.sampled_from(ALL)
    | st.integers(50, 99).map(latency)
    | st.integers(1, 1500).map(lambda tenths: errors(f"{tenths / 10:g}")),
    most=st.integers(1, 600),
    confidence=st.integers(80, 99),
)
def test_it_is_refused_exactly_when_perfect_evidence_does_not_pass(
    chosen: Gate, most: int, confidence: int
) -> None:
    declared = analysis(most, confidence=confidence)
    perfect = evidence(counters(most, spread=0.0))
    passes = evaluate([chosen], declared, perfect).verdict is Verdict.PASS
    assert (infeasible_gate([chosen], declared) is None) is passes
