"""Gates on the candidate alone: what they pass, what they fail, what they refuse to judge."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.gates.evidence import ProbeTotals
from modelrollout.gates.sequential import FEWEST_REQUESTS
from modelrollout.gates.stability import FEWEST_PROMPTS
from modelrollout.gates.verdict import GateResult, Verdict
from tests.unit.gates.judging import (
    COST,
    ERRORS,
    LATENCY,
    MEMORY,
    NOTHING,
    STABILITY,
    counters,
    evidence,
    found,
)


# -- latency ---------------------------------------------------------------------------------------
def test_latency_passes_when_72_of_72_were_fast() -> None:
    result = found(LATENCY, evidence(counters(72)))
    assert result.verdict is Verdict.PASS
    assert result.message == "0 of 72 slower than 1700 ms, limit 5 %: kept, with 95 % confidence"
    assert result.limit == "p95 <= 1700 ms"
    assert result.n == 72
    assert result.estimate == "0 %"


def test_latency_says_what_is_still_needed() -> None:
    result = found(LATENCY, evidence(counters(96, slow=1)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needed == 34
    assert result.message == (
        "1 of 96 slower than 1700 ms, limit 5 %: "
        "passes at 130 requests if none of the next 34 is slow"
    )


def test_latency_says_when_the_declared_requests_cannot_suffice() -> None:
    result = found(LATENCY, evidence(counters(200, slow=8)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "more than the 300 requests of `analysis.maxRequests`" in result.message


def test_latency_fails_on_proof_not_on_a_bad_share() -> None:
    # Given half of the requests so far slow, ten times the limit, but only four of them
    assert found(LATENCY, evidence(counters(4, slow=2))).verdict is Verdict.INCONCLUSIVE
    assert found(LATENCY, evidence(counters(60, slow=10))).verdict is Verdict.FAIL


def test_latency_refuses_a_limit_that_is_no_bucket_edge() -> None:
    latest = replace(counters(100), within={500: 0, 2000: 100, 3000: 100})
    result = found(LATENCY, evidence(latest))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "ThresholdNotABucketEdge")
    assert "the nearest are 500 and 2000" in result.message


def test_latency_refuses_more_fast_requests_than_requests() -> None:
    latest = replace(counters(100), within={1700: 101})
    assert found(LATENCY, evidence(latest)).verdict is Verdict.INVALID


def test_a_request_that_failed_was_not_answered_in_time() -> None:
    # Given six slow answers and six failures
    result = found(LATENCY, evidence(counters(90, slow=6, failed=6)))
    assert result.message.startswith("12 of 96 slower than 1700 ms or failed, limit 5 %: ")
    assert (result.n, result.estimate) == (96, "12.5 %")
    # And when one failure is all there is to it
    result = found(LATENCY, evidence(counters(95, failed=1)))
    assert result.message == (
        "1 of 96 slower than 1700 ms or failed, limit 5 %: "
        "passes at 130 requests if none of the next 34 is slow or fails"
    )


def test_failures_do_not_hide_behind_the_few_fast_answers() -> None:
    assert found(LATENCY, evidence(counters(60, failed=540))).verdict is Verdict.FAIL
    assert found(LATENCY, evidence(counters(0, failed=60))).verdict is Verdict.FAIL


# -- errors ----------------------------------------------------------------------------------------
def test_errors_pass_and_fail_as_a_share_of_all_requests() -> None:
    assert found(ERRORS, evidence(counters(72))).verdict is Verdict.PASS
    result = found(ERRORS, evidence(counters(50, failed=10)))
    assert result.verdict is Verdict.FAIL
    assert result.message == "10 of 60 failed, limit 5 %: exceeded, with 95 % confidence"


def test_no_request_at_all_is_no_proof_that_none_fails() -> None:
    assert found(ERRORS, evidence(counters(0))).verdict is Verdict.INVALID


def test_a_limit_of_no_errors_can_be_broken_but_not_proved() -> None:
    strict = Gate.model_validate({"name": "errors", "errors": {"maxPercent": "0"}})
    assert found(strict, evidence(counters(50, failed=1))).verdict is Verdict.FAIL
    result = found(strict, evidence(counters(5000)))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "LimitNotProvable")


# -- out of memory ---------------------------------------------------------------------------------
def test_one_event_in_the_server_fails_at_once() -> None:
    result = found(MEMORY, evidence(counters(1, ooms=1)))
    assert result.verdict is Verdict.FAIL
    assert result.message == "out of memory once (1 in the server, 0 by the kernel), limit 0"


@pytest.mark.parametrize("latest", [None, NOTHING])
def test_one_kill_by_the_kernel_fails_without_any_counters(latest: Any) -> None:
    result = found(MEMORY, evidence(latest, baseline=None, container_out_of_memory=1))
    assert result.verdict is Verdict.FAIL


def test_events_of_the_warm_up_count() -> None:
    given = evidence(counters(50, ooms=1), baseline=replace(counters(10), within={}))
    assert found(MEMORY, given).verdict is Verdict.FAIL


def test_no_event_passes_at_the_minimum_and_says_what_it_does_not_prove() -> None:
    early = found(MEMORY, evidence(counters(29)))
    assert (early.verdict, early.needed) == (Verdict.INCONCLUSIVE, 1)
    result = found(MEMORY, evidence(counters(130)))
    assert result.verdict is Verdict.PASS
    assert "no proof of absence" in result.message
    assert "fewer than 1 in 43 requests" in result.message


def test_allowed_events_pass_with_a_wider_bound() -> None:
    lenient = Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 2}})
    result = found(lenient, evidence(counters(130, ooms=2)))
    assert result.verdict is Verdict.PASS
    assert "fewer than 1 in 20 requests" in result.message
    assert found(lenient, evidence(counters(130, ooms=3))).verdict is Verdict.FAIL


# -- cost ------------------------------------------------------------------------------------------
def test_cost_is_busy_time_at_the_price_of_all_gpus_per_image() -> None:
    # Given 1 s per image at 3.60 an hour: 0.001 an image on one GPU
    assert found(COST, evidence(counters(60))).estimate == "0.001"
    assert found(COST, evidence(counters(60), gpu_count=2)).estimate == "0.002"
    # When each request delivered four images
    latest = replace(counters(60), images=240)
    assert found(COST, evidence(latest)).estimate == "0.00025"
    # When failed attempts kept the GPU busy as long again
    latest = replace(counters(60), busy_seconds=120.0)
    assert found(COST, evidence(latest)).estimate == "0.002"


def test_cost_passes_and_fails_by_its_interval_only() -> None:
    assert found(COST, evidence(counters(60, seconds=1.0))).verdict is Verdict.PASS
    assert found(COST, evidence(counters(60, seconds=6.0))).verdict is Verdict.FAIL
    # Given an estimate just beyond the limit, or just below, with a wide spread
    above = found(COST, evidence(counters(60, seconds=2.1, spread=0.3)))
    below = found(COST, evidence(counters(60, seconds=1.9, spread=0.3)))
    assert above.verdict is below.verdict is Verdict.INCONCLUSIVE
    assert above.needed is None
    assert below.needed is not None
    reached = counters(60 + below.needed, seconds=1.9, spread=0.3)
    assert found(COST, evidence(reached)).verdict is Verdict.PASS


def test_cost_trusts_no_mean_of_a_few_requests() -> None:
    for seconds in (0.1, 100.0):
        given = counters(FEWEST_REQUESTS - 1, seconds=seconds, spread=0.0)
        assert found(COST, evidence(given)).verdict is Verdict.INCONCLUSIVE


def test_no_images_are_no_evidence_of_a_low_cost() -> None:
    latest = replace(counters(60), images=0)
    result = found(COST, evidence(latest))
    assert (result.verdict, result.reason) == (Verdict.INVALID, "NoImages")


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu_hour_price": Decimal("NaN")},
        {"gpu_hour_price": Decimal(-1)},
        {"gpu_count": 0},
    ],
)
def test_cost_without_a_price_is_invalid(changes: dict[str, Any]) -> None:
    assert found(COST, evidence(counters(60), **changes)).verdict is Verdict.INVALID


def test_cost_refuses_moments_that_no_numbers_have() -> None:
    latest = replace(counters(60), gpu_seconds_squares=10.0)
    assert found(COST, evidence(latest)).reason == "InconsistentCounters"
    latest = replace(counters(60), gpu_seconds=0.0, gpu_seconds_squares=0.0)
    assert found(COST, evidence(latest)).reason == "InconsistentCounters"


# -- stability -------------------------------------------------------------------------------------
def probed(prompts: int, deviation: float | None) -> GateResult:
    probe = ProbeTotals(repeat_prompts=prompts, repeat_deviation=deviation, loading=False)
    return found(STABILITY, evidence(counters(60), probe=probe))


def test_stability_passes_with_enough_prompts() -> None:
    assert probed(FEWEST_PROMPTS, 0.002).verdict is Verdict.PASS
    early = probed(FEWEST_PROMPTS - 1, 0.0)
    assert (early.verdict, early.needed) == (Verdict.INCONCLUSIVE, 1)


def test_stability_fails_on_the_first_prompt_that_differs() -> None:
    result = probed(1, 0.0021)
    assert result.verdict is Verdict.FAIL
    assert result.message == "repeats differ by 0.0021, limit 0.002: exceeded, over 1 prompt"
    assert probed(9, 0.0020001).message == (
        "repeats differ by 0.0020001, limit 0.002: exceeded, over 9 prompts"
    )


def test_prompts_that_are_needed_are_no_requests() -> None:
    # Given fewer requests declared than prompts needed
    few = Analysis(min_requests=3, max_requests=3)
    probe = ProbeTotals(repeat_prompts=1, repeat_deviation=0.0, loading=False)
    result = found(STABILITY, evidence(counters(3), probe=probe), few)
    assert result.needed == FEWEST_PROMPTS - 1
    assert "maxRequests" not in result.message


@pytest.mark.parametrize(
    ("prompts", "deviation"),
    [(0, None), (12, None), (12, float("nan")), (12, -0.1), (12, float("inf")), (-1, 0.0)],
)
def test_stability_without_a_measurement_is_invalid(prompts: int, deviation: float | None) -> None:
    assert probed(prompts, deviation).verdict is Verdict.INVALID


def test_stability_without_a_probe_is_invalid() -> None:
    assert found(STABILITY, evidence(counters(60), probe=None)).reason == "NoProbe"
