"""Gates that compare the candidate with stable."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.gate_types import Gate
from modelrollout.gates.changes import ChangeWords, Margins
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import (
    COST_VS_STABLE,
    LATENCY_VS_STABLE,
    MEMORY_VS_STABLE,
    arm,
    beside,
    evidence,
    found,
)

ORDER = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]


def gate(**kind: Any) -> Gate:
    return Gate.model_validate({"name": "some", **kind})


# -- cost ------------------------------------------------------------------------------------------
def test_a_dearer_candidate_fails_and_an_equal_one_passes() -> None:
    assert found(COST_VS_STABLE, beside(arm(60), arm(60))).verdict is Verdict.PASS
    result = found(COST_VS_STABLE, beside(arm(60, seconds=1.5), arm(60)))
    assert result.verdict is Verdict.FAIL
    assert result.message.startswith("50 % dearer than stable over 60 requests (between 40 % ")
    assert result.message.endswith(": beyond +15 %, with 95 % confidence")


@pytest.mark.parametrize(
    ("stable", "estimate"),
    [
        ({}, "no change"),
        ({"stable_gpu_hour_price": Decimal("1.80")}, "100 % dearer"),
        ({"stable_gpu_count": 2}, "50 % cheaper"),
        ({"stable_gpu_hour_price": Decimal("1.80"), "stable_gpu_count": 2}, "no change"),
    ],
)
def test_prices_and_gpus_of_both_arms_count(stable: dict[str, Any], estimate: str) -> None:
    assert found(COST_VS_STABLE, beside(arm(60), arm(60), **stable)).estimate == estimate


def test_time_is_compared_where_it_is_for_free() -> None:
    free = {"gpu_hour_price": Decimal(0)}
    assert found(COST_VS_STABLE, beside(arm(60, seconds=2.0), arm(60), **free)).estimate == (
        "100 % dearer"
    )
    result = found(COST_VS_STABLE, beside(arm(60), arm(60), stable_gpu_hour_price=Decimal(0)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NoPrice")


def test_both_limits_of_a_cost_gate_must_be_kept() -> None:
    both = gate(cost={"maxPerImage": "0.002", "maxIncreasePercent": 15})
    kept = found(both, beside(arm(60), arm(60)))
    assert kept.verdict is Verdict.PASS
    assert kept.limit == "<= 0.002 per image and <= stable +15 %"
    assert kept.estimate == "0.001, no change"
    # Given a candidate within the absolute limit that is far dearer than stable
    dearer = found(both, beside(arm(60), arm(60, seconds=0.5)))
    assert dearer.verdict is Verdict.FAIL
    assert "per image over" not in dearer.message
    # Given one as dear as stable, both beyond the absolute limit
    beyond = found(both, beside(arm(60, seconds=6.0), arm(60, seconds=6.0)))
    assert beyond.verdict is Verdict.FAIL
    assert "stable" not in beyond.message
    # The error budget for Fail is that of one gate
    assert "with 97.5 % confidence" in beyond.message
    # And without stable, only a Fail is left
    assert found(both, evidence(arm(60))).verdict is Verdict.INVALID
    assert found(both, evidence(arm(60, seconds=6.0))).verdict is Verdict.FAIL


def test_what_both_limits_need_is_the_larger_number() -> None:
    both = gate(cost={"maxPerImage": "0.002", "maxIncreasePercent": 15})
    undecided = found(both, beside(arm(40, seconds=1.9, spread=0.3), arm(40, seconds=1.9)))
    absolute = found(
        gate(cost={"maxPerImage": "0.002"}), evidence(arm(40, seconds=1.9, spread=0.3))
    )
    assert absolute.needed is not None
    assert undecided.needed is not None
    assert undecided.needed >= absolute.needed > 0


def test_stable_without_images_is_named() -> None:
    result = found(COST_VS_STABLE, beside(arm(60), arm(0)))
    assert result.reason == "NoImages"
    assert result.message.startswith("at stable: no image is delivered yet")


# -- out of memory ---------------------------------------------------------------------------------
def test_a_sparse_series_against_an_all_zero_stable_is_caught() -> None:
    # Given events in one request of twenty, and none in four times as many of stable
    assert found(MEMORY_VS_STABLE, beside(arm(60, ooms=3), arm(240))).verdict is not Verdict.FAIL
    result = found(MEMORY_VS_STABLE, beside(arm(100, ooms=5), arm(400)))
    assert result.verdict is Verdict.FAIL
    assert result.message == (
        "5 times in 100 requests, stable never in 400: more than 2 x as often, with 95 % confidence"
    )


def test_one_event_at_a_small_share_is_for_the_hard_limit_to_catch() -> None:
    given = beside(arm(50, ooms=1), arm(950))
    assert found(MEMORY_VS_STABLE, given).verdict is Verdict.INCONCLUSIVE
    strict = gate(outOfMemory={"maxCount": 0, "maxTimesStable": 2})
    assert found(strict, given).reason == "OutOfMemory"


def test_a_candidate_like_a_stable_that_runs_out_too_passes() -> None:
    assert found(MEMORY_VS_STABLE, beside(arm(100, ooms=2), arm(400, ooms=8))).verdict is (
        Verdict.PASS
    )
    # And one that seems worse than allowed is neither passed nor failed by chance
    worse = found(MEMORY_VS_STABLE, beside(arm(100, ooms=2), arm(400, ooms=1)))
    assert (worse.verdict, worse.needed) == (Verdict.INCONCLUSIVE, None)
    assert "more than 2 x as often, though it may be by chance" in worse.message


def test_no_event_is_still_no_proof() -> None:
    result = found(MEMORY_VS_STABLE, beside(arm(100), arm(400)))
    assert result.verdict is Verdict.PASS
    assert "no proof of absence" in result.message
    assert result.limit == "<= 1000 and <= 2 x stable's rate"
    early = found(MEMORY_VS_STABLE, beside(arm(20), arm(400)))
    assert (early.verdict, early.needed) == (Verdict.INCONCLUSIVE, 10)


def test_events_without_requests_at_stable_are_not_compared() -> None:
    assert found(MEMORY_VS_STABLE, beside(arm(100, ooms=9), arm(0))).verdict is Verdict.INVALID


# -- words -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ratio", "said", "beside_stable"),
    [
        (1.0, "no change", "as fast as stable"),
        (1.0004, "no change", "as fast as stable"),
        (1.042, "4.2 % slower", "4.2 % slower than stable"),
        (1.27, "27 % slower", "27 % slower than stable"),
        (0.5, "50 % faster", "50 % faster than stable"),
        (3.17, "3.17 x as slow", "3.17 x as slow as stable"),
        (float("inf"), "inf x as slow", "inf x as slow as stable"),
    ],
)
def test_ratios_in_words(ratio: float, said: str, beside_stable: str) -> None:
    words = ChangeWords("slower", "faster", "as slow", "as fast as stable")
    assert words.of(ratio) == said
    assert words.beside_stable(ratio) == beside_stable


def test_the_pass_margin_is_two_and_a_half_times_the_increase() -> None:
    margins = Margins.of(10)
    assert margins.fail == pytest.approx(1.1)
    assert margins.passing == pytest.approx(1.25)
    assert Margins.of(15).passing == pytest.approx(1.375)
    assert Margins.of(10, 12).passing == pytest.approx(1.12)


# -- laws ------------------------------------------------------------------------------------------
@given(
    requests=st.integers(0, 1000),
    at_stable=st.integers(0, 1000),
    seconds=st.floats(0.01, 100),
    factor=st.floats(1.001, 50),
    wanted=st.sampled_from([LATENCY_VS_STABLE, COST_VS_STABLE]),
)
def test_a_slower_candidate_is_never_judged_better(
    requests: int, at_stable: int, seconds: float, factor: float, wanted: Gate
) -> None:
    stable = arm(at_stable, seconds=1.0, spread=0.3)
    faster = arm(requests, seconds=seconds, spread=0.3 * seconds)
    slower = arm(requests, seconds=factor * seconds, spread=0.3 * factor * seconds)
    before = found(wanted, beside(faster, stable)).verdict
    after = found(wanted, beside(slower, stable)).verdict
    if Verdict.INVALID in (before, after):
        assert before is after
    else:
        assert ORDER.index(after) >= ORDER.index(before)


@given(
    ooms=st.integers(0, 50),
    more=st.integers(0, 50),
    at_stable=st.integers(0, 20),
    requests=st.integers(1, 1000),
    limits=st.tuples(st.integers(0, 60), st.integers(1, 5)),
)
def test_more_events_never_improve_a_verdict(
    ooms: int, more: int, at_stable: int, requests: int, limits: tuple[int, int]
) -> None:
    wanted = gate(outOfMemory={"maxCount": limits[0], "maxTimesStable": limits[1]})
    stable = arm(400, ooms=at_stable)
    before = found(wanted, beside(arm(requests, ooms=ooms), stable)).verdict
    after = found(wanted, beside(arm(requests, ooms=ooms + more), stable)).verdict
    assert ORDER.index(after) >= ORDER.index(before)
