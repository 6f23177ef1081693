"""Cost: silence that looks free, mixes that cannot be compared, and what an image varies by."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.gates.blocks import Blocks
from modelrollout.gates.cost import MOST_APART
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.sequential import FEWEST_REQUESTS
from modelrollout.gates.verdict import GateResult, Verdict
from tests.unit.gates.judging import (
    COST,
    COST_VS_STABLE,
    arm,
    beside,
    counters,
    evidence,
    found,
    log_moments,
)


# -- silence ---------------------------------------------------------------------------------------
def test_images_without_busy_time_are_a_silent_counter() -> None:
    silent: dict[str, Any] = {"busy_seconds": 0.0, "gpu_seconds": 0.0, "gpu_seconds_squares": 0.0}
    result = found(COST, evidence(replace(counters(60), **silent)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NoBusyTime")
    assert result.message.startswith("60 images were delivered and no GPU was busy")
    # And at stable too, where it would make every candidate infinitely dearer
    beside_silence = found(COST_VS_STABLE, beside(arm(60), replace(arm(60), **silent)))
    assert (beside_silence.verdict, beside_silence.reason) == (Verdict.INVALID, "NoBusyTime")
    assert beside_silence.message.startswith("at stable: ")


def test_what_is_for_free_passes_and_is_said_to_be() -> None:
    free = {"gpu_hour_price": Decimal(0)}
    result = found(COST, evidence(counters(60), **free))
    assert (result.verdict, result.estimate, result.interval) == (Verdict.PASS, "0", None)
    assert result.message == "the pool's GPUs are for free (`gpuHourPrice` is 0), over 60 requests"
    early = found(COST, evidence(counters(FEWEST_REQUESTS - 1), **free))
    assert early.verdict is Verdict.INCONCLUSIVE


# -- few requests ----------------------------------------------------------------------------------
def test_no_interval_is_shown_of_a_few_requests() -> None:
    early = found(COST, evidence(counters(FEWEST_REQUESTS - 1)))
    assert early.interval is None
    assert early.message == (
        "0.001 per image over 29 requests, limit 0.002: a mean takes 30 requests"
    )
    assert found(COST, evidence(counters(FEWEST_REQUESTS))).interval is not None
    for candidate, stable in ((29, 200), (200, 29)):
        result = found(COST_VS_STABLE, beside(arm(candidate), arm(stable)))
        assert (result.verdict, result.interval) == (Verdict.INCONCLUSIVE, None)
        assert "a comparison takes 30 requests of each arm" in result.message


def test_an_exceeded_limit_is_told_from_the_limit() -> None:
    just = found(COST, evidence(counters(300, seconds=2.004, spread=0.01)))
    assert just.verdict is Verdict.FAIL
    assert "limit 0.002: exceeded, at least 0.002003 with 95 % confidence" in just.message


# -- mixes -----------------------------------------------------------------------------------------
def mixed(requests: int, large: float, seconds: float = 1.0) -> Comparison:
    """Arms of which stable was asked for small pictures, and the candidate for large ones too."""
    classes = {"small": 1 - large, "large": large}
    return Comparison(arm(requests, seconds=seconds, classes=classes), arm(requests))


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_arms_with_other_mixes_of_requests_are_not_compared_by_cost(seconds: float) -> None:
    def judged(large: float) -> GateResult:
        both = mixed(200, large, seconds)
        return found(COST_VS_STABLE, evidence(both.candidate, comparison=both))

    alike, apart = judged(MOST_APART), judged(0.2)
    assert alike.verdict is (Verdict.PASS if seconds == 1 else Verdict.FAIL)
    assert (apart.verdict, apart.reason) == (Verdict.INCONCLUSIVE, "DifferentMix")
    assert "But 20 % of the candidate's requests would have to be of other classes" in apart.message
    assert "set `cost.maxPerImage` alone" in apart.message


def test_a_mix_that_only_one_arm_tells_of_is_another() -> None:
    both = Comparison(arm(200), replace(arm(200), log_moments={}))
    assert found(COST_VS_STABLE, evidence(both.candidate, comparison=both)).reason == "DifferentMix"


def test_a_count_of_a_class_that_is_none_is_invalid() -> None:
    broken = replace(arm(200), log_moments={"small": replace(log_moments(9, 1.0), count=-1)})
    result = found(COST_VS_STABLE, replace(beside(arm(200), broken)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NotACount")


@given(st.floats(0, 1), st.integers(30, 500), st.floats(0.2, 5))
def test_a_mix_only_ever_withholds_a_verdict(large: float, requests: int, seconds: float) -> None:
    both = mixed(requests, large, seconds)
    alone = Comparison(replace(both.candidate, log_moments=both.stable.log_moments), both.stable)
    given_both, given_alone = (evidence(item.candidate, comparison=item) for item in (both, alone))
    withheld = found(COST_VS_STABLE, given_both)
    assert withheld.verdict in (found(COST_VS_STABLE, given_alone).verdict, Verdict.INCONCLUSIVE)


# -- images per request ----------------------------------------------------------------------------
def course(seed: int, *, blocks_count: bool) -> Verdict:
    """The first verdict on a candidate at the limit: equal times, for 1 or 4 images at random."""
    rng = np.random.default_rng(seed)
    gate = Gate.model_validate({"name": "cost", "cost": {"maxPerImage": "0.0004"}})
    blocks, images = Blocks(), 0
    for n in range(10, 301, 10):
        images += int(rng.choice((1, 4), 10).sum())
        measured = replace(counters(n, spread=0.0), images=images)
        blocks = blocks.add(measured, None, [])
        effects = blocks.design_effects(measured, None, []) if blocks_count else {}
        verdict = found(gate, evidence(measured, design_effects=effects)).verdict
        if verdict in (Verdict.PASS, Verdict.FAIL):
            return verdict
    return Verdict.INCONCLUSIVE


def test_equal_times_for_random_numbers_of_images_prove_no_cost() -> None:
    trials = range(200)
    believed = [course(seed, blocks_count=True) for seed in trials]
    naive = [course(seed, blocks_count=False) for seed in trials]
    assert naive.count(Verdict.INCONCLUSIVE) == 0
    assert max(believed.count(Verdict.PASS), believed.count(Verdict.FAIL)) < 0.15 * len(trials)
    assert believed.count(Verdict.INCONCLUSIVE) > 0.75 * len(trials)


def test_a_cost_that_varies_is_told_of() -> None:
    effects = {"cost": 4.0}
    assert "(the cost of an image varies: 60 requests count as 15)" in (
        found(COST, evidence(counters(60), design_effects=effects)).message
    )
    assert "the cost of an image varies: 60 requests count as 15" in (
        found(COST_VS_STABLE, beside(arm(60), arm(60), design_effects=effects)).message
    )
