"""Evidence and gates for tests, by what matters in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from modelrollout.api.base import ApiModel
from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.gates.evidence import Comparison, Evidence, ProbeTotals
from modelrollout.gates.judge import KINDS, evaluate
from modelrollout.gates.look import Look
from modelrollout.gates.totals import LogMoments, Totals
from modelrollout.gates.verdict import Finding, GateResult

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

LATENCY = Gate.model_validate(
    {"name": "latency-p95", "latency": {"percentile": 95, "maxMilliseconds": 1700}}
)
ERRORS = Gate.model_validate({"name": "errors", "errors": {"maxPercent": "5"}})
MEMORY = Gate.model_validate({"name": "oom", "outOfMemory": {"maxCount": 0}})
COST = Gate.model_validate({"name": "cost", "cost": {"maxPerImage": "0.002"}})
STABILITY = Gate.model_validate(
    {"name": "repeatable", "stability": {"kind": "Repeat", "max": "0.002"}}
)
GPU_MEMORY = Gate.model_validate({"name": "gpu-memory", "gpuMemory": {"maxPercent": 92}})
LATENCY_VS_STABLE = Gate.model_validate(
    {"name": "latency-vs-stable", "latency": {"maxIncreasePercent": 10}}
)
COST_VS_STABLE = Gate.model_validate({"name": "cost-vs-stable", "cost": {"maxIncreasePercent": 15}})
MEMORY_VS_STABLE = Gate.model_validate(
    {"name": "oom-vs-stable", "outOfMemory": {"maxCount": 1000, "maxTimesStable": 2}}
)
ALL = (LATENCY, ERRORS, MEMORY, COST, STABILITY)

"""Gates that need no comparison."""

RELATIVE = (LATENCY_VS_STABLE, COST_VS_STABLE, MEMORY_VS_STABLE)

ANALYSIS = Analysis(min_requests=30, max_requests=300)

NOTHING = Totals(
    pod="campaign-images-1",
    time=NOON,
    succeeded=0,
    failed=0,
    images=0,
    measured=0,
    gpu_seconds=0.0,
    gpu_seconds_squares=0.0,
    busy_seconds=0.0,
    timed=0,
    within={1700: 0},
    out_of_memory=0,
)


def counters(
    requests: int,
    *,
    slow: int = 0,
    failed: int = 0,
    ooms: int = 0,
    seconds: float = 1.0,
    spread: float = 0.1,
    pod: str = NOTHING.pod,
) -> Totals:
    """Counters after so many served requests of one image each."""
    return Totals(
        pod=pod,
        time=NOON,
        succeeded=requests,
        failed=failed,
        images=requests,
        measured=requests,
        gpu_seconds=requests * seconds,
        gpu_seconds_squares=requests * (seconds**2 + spread**2),
        busy_seconds=requests * seconds,
        timed=requests,
        within={500: 0, 1700: requests - slow, 3000: requests},
        out_of_memory=ooms,
    )


def evidence(latest: Totals | None, **changes: Any) -> Evidence:
    """Evidence of a candidate that was stable in twelve prompts, at 3.60 per GPU hour."""
    given: dict[str, Any] = {
        "baseline": NOTHING,
        "latest": latest,
        "probe": ProbeTotals(repeat_prompts=12, repeat_deviation=0.0004, loading=True),
        "container_out_of_memory": 0,
        "gpu_hour_price": Decimal("3.60"),
        "gpu_count": 1,
    }
    if latest is not None:
        # The server's edges exist from the start, so the baseline has them too.
        given["baseline"] = Totals(
            **{
                **{name: getattr(NOTHING, name) for name in NOTHING.__slots__},
                "within": dict.fromkeys(latest.within, 0),
            }
        )
    return Evidence(**{**given, **changes})


def log_moments(requests: int, seconds: float, log_deviation: float = 0.35) -> LogMoments:
    """Moments of so many requests with that median time and spread of its logarithm."""
    mean = math.log(1000 * seconds)
    deviations = max(0, requests - 1) * log_deviation**2
    return LogMoments(requests, requests * mean, requests * mean**2 + deviations)


def arm(
    requests: int,
    *,
    seconds: float = 1.0,
    classes: Mapping[str, float] | None = None,
    peak: float | None = 0.8,
    **more: Any,
) -> Totals:
    """What one arm did, with log moments: `classes` has the share of the requests of each."""
    shares = {"small": 1.0} if classes is None else classes
    return replace(
        counters(requests, seconds=seconds, **more),
        log_moments={
            name: log_moments(round(requests * share), seconds) for name, share in shares.items()
        },
        peak_memory_share=peak,
    )


def beside(candidate: Totals, stable: Totals, **changes: Any) -> Evidence:
    """Evidence of both arms, from the same time."""
    return evidence(candidate, comparison=Comparison(candidate, stable), **changes)


def found(gate: Gate, given: Evidence, analysis: Analysis = ANALYSIS) -> GateResult:
    """What one gate finds that is declared alone."""
    return evaluate([gate], analysis, given).results[0]


def judged(criterion: ApiModel, given: Evidence) -> Finding:
    """What is found by a criterion that need not be a member of a gate."""
    return KINDS[type(criterion)].judge(criterion, Look.at(given, ANALYSIS, tests=1))
