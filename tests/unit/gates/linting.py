"""Specs to be linted before a trial."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from modelrollout.api.spec import Spec
from modelrollout.gates.lint import GateLint, Lint, lint
from modelrollout.gates.totals import Totals
from tests.unit.gates.judging import arm

P95 = {"name": "latency-p95", "latency": {"percentile": 95, "maxMilliseconds": 1700}}
ERRORS = {"name": "errors", "errors": {"maxPercent": "5"}}
SLOWER = {"name": "slower", "latency": {"maxIncreasePercent": 10}}
COST = {"name": "cost", "cost": {"maxPerImage": "0.002"}}
DEARER = {"name": "dearer", "cost": {"maxIncreasePercent": 10}}
MEMORY = {"name": "oom", "outOfMemory": {"maxCount": 0}}
PEAK = {"name": "gpu-memory", "gpuMemory": {"maxPercent": 92}}
REPEATABLE = {"name": "repeatable", "stability": {"kind": "Repeat", "max": "0.002"}}

STORY = {
    "pool": "preview",
    "model": {
        "source": {"persistentVolumeClaim": {"claimName": "models", "path": "sd"}},
        "pipeline": {
            "scheduler": "DDIM",
            "steps": 10,
            "guidanceScale": "5",
            "width": 64,
            "height": 64,
        },
        "limits": {"maxSteps": 100, "maxPixels": 65536},
    },
}


def declared(*gates: dict[str, Any], **changes: Any) -> Spec:
    """A spec with these gates, 60 requests a minute, and whatever else is changed."""
    return Spec.model_validate({**STORY, "gates": list(gates), **changes})


def linted(*gates: dict[str, Any], stable: Totals | None = None, **changes: Any) -> Lint:
    return lint(declared(*gates, **changes), gpu_hour_price=Decimal("3.60"), stable=stable)


def only(found: Lint) -> GateLint:
    (gate,) = found.gates
    return gate


def stable_that(requests: int, **more: Any) -> Totals:
    """Lifetime counters of stable: so many requests of a second each."""
    return arm(requests, **more)
