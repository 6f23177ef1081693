"""Every kind of gate, and evidence on which all of them pass."""

from __future__ import annotations

from decimal import Decimal

from modelrollout.api.gate_types import (
    Gate,
    QueryGate,
    StabilityGate,
    StabilityKind,
    TextAccuracyGate,
)
from modelrollout.gates.evidence import (
    Deviations,
    Evidence,
    PairedScores,
)
from tests.unit.gates.judging import (
    ALL,
    GPU_MEMORY,
    RELATIVE,
    arm,
    beside,
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
