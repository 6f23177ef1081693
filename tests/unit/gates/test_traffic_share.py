"""Whether the candidate gets the share of traffic that was declared for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from modelrollout.api.gate_types import Gate
from modelrollout.gates.judge import evaluate
from modelrollout.gates.traffic_share import SURPRISE, probability
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    ALL,
    ANALYSIS,
    ERRORS,
    GPU_MEMORY,
    LATENCY,
    LATENCY_VS_STABLE,
    MEMORY,
    RELATIVE,
    STABILITY,
    arm,
    beside,
    found,
)

COUNTING = tuple(gate for gate in (*ALL, *RELATIVE) if gate is not STABILITY)


@pytest.mark.parametrize("gate", COUNTING, ids=lambda gate: gate.name)
def test_nothing_is_judged_on_another_share_than_the_declared_one(gate: Gate) -> None:
    # Given 10 % declared and half of the requests observed
    skewed = beside(arm(300), arm(300), declared_share=0.1)
    result = found(gate, skewed)
    assert (result.verdict, result.reason) == (Verdict.INVALID, "TrafficSkew")
    assert result.message.startswith(
        "300 of 600 requests (50 %) reached the candidate, where 10 % are declared: "
    )
    # And the share that was declared is none of its business
    assert found(gate, beside(arm(300), arm(300), declared_share=0.5)).verdict is Verdict.PASS


def test_a_bad_candidate_is_not_blamed_for_traffic_that_is_not_its_own() -> None:
    skewed = beside(arm(300, slow=200, failed=50), arm(300), declared_share=0.1)
    for gate in (LATENCY, ERRORS):
        assert found(gate, skewed).reason == "TrafficSkew"


def test_facts_fail_whatever_the_traffic() -> None:
    skewed = beside(arm(300, ooms=1, peak=0.99), arm(300), declared_share=0.1)
    assert found(MEMORY, skewed).verdict is Verdict.FAIL
    assert found(GPU_MEMORY, skewed).verdict is Verdict.FAIL
    # And the probe's pictures do not depend on it
    assert found(STABILITY, skewed).verdict is Verdict.PASS


def test_the_probe_alone_declares_no_share() -> None:
    given = beside(arm(300), arm(30), declared_share=None)
    assert found(LATENCY, given).verdict is Verdict.PASS


def test_requests_go_on_being_counted_while_shares_differ() -> None:
    skewed = beside(arm(300), arm(300), declared_share=0.1)
    assessment = evaluate([LATENCY, ERRORS], ANALYSIS, skewed)
    assert assessment.requests == 300
    # And the same cause is told once, for all gates that it concerns
    assert assessment.message.startswith("latency-p95, errors: 300 of 600 requests")
    assert assessment.message.count("reached the candidate") == 1


@pytest.mark.parametrize("share", [float("nan"), -0.1, 1.1, float("inf"), 10**400])
def test_a_declared_share_that_is_none_is_invalid(share: float) -> None:
    result = found(LATENCY_VS_STABLE, beside(arm(300), arm(300), declared_share=share))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NotAShare")


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.01, 0.99))
def test_it_is_the_exact_binomial_test(n: int, observed: float, share: float) -> None:
    k = round(n * observed)
    smaller = min(binomtest(k, n, share, side).pvalue for side in ("less", "greater"))
    assert probability(k, n, share) == pytest.approx(min(1.0, 2 * smaller), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "share", "skewed"),
    [
        (10, 100, 0.10, False),
        (20, 100, 0.10, False),
        (22, 100, 0.10, True),
        (2, 100, 0.10, False),
        (0, 65, 0.10, False),
        (0, 75, 0.10, True),
        (0, 100, 0.0, False),
        (1, 100, 0.0, True),
        (100, 100, 1.0, False),
        (99, 100, 1.0, True),
        (5_010_000, 10_000_000, 0.5, True),
        (5_001_000, 10_000_000, 0.5, False),
    ],
)
def test_what_is_still_chance(k: int, n: int, share: float, *, skewed: bool) -> None:
    assert (probability(k, n, share) < SURPRISE) is skewed
