"""``spec.gates``: the declared criteria, one type for each kind of gate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from modelrollout.api.base import ApiModel, DecimalString, DnsLabel, cel

__all__ = [
    "GATE_KINDS",
    "CostGate",
    "ErrorsGate",
    "Gate",
    "GateMode",
    "LatencyGate",
    "OutOfMemoryGate",
    "StabilityGate",
    "StabilityKind",
]


class GateMode(StrEnum):
    """Whether a gate decides or only reports."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class StabilityKind(StrEnum):
    """Which images a stability gate compares."""

    REPEAT = "Repeat"


class LatencyGate(ApiModel):
    """A share of requests (the percentile) must be answered within a time."""

    percentile: Annotated[int, Field(ge=50, le=99)]
    """Percentile, such as 95: at most 5 percent of requests may take longer."""

    max_milliseconds: Annotated[int, Field(ge=1, le=3600000)]
    """Longest time from arrival to answer, queue included, in milliseconds."""


class OutOfMemoryGate(ApiModel):
    """Running out of memory: of the GPU (the server counts) or of the container (the kernel)."""

    max_count: Annotated[int, Field(ge=0, le=1000)]
    """Most events since the attempt began; one more rolls back at once."""


class ErrorsGate(ApiModel):
    """The share of requests that fail by the server's fault."""

    max_percent: DecimalString
    """Largest share in percent, such as '1'."""


class CostGate(ApiModel):
    """GPU time per delivered image, at the pool's price."""

    max_per_image: DecimalString
    """Highest cost of one image, in the currency of the pool's price."""


class StabilityGate(ApiModel):
    """Pixel stability deviation: how much images differ that should be equal."""

    kind: StabilityKind
    """`Repeat`: same prompt, same seed, same batch shape, several runs."""

    max: DecimalString
    """Largest deviation allowed, on the scale of 0 to 1; half of one 8-bit level is '0.002'."""


GATE_KINDS = ("latency", "outOfMemory", "errors", "cost", "stability")
"""The members of a gate of which exactly one is set, by their names in YAML."""

_EXACTLY_ONE = (
    "[" + ", ".join(f"has(self.{kind})" for kind in GATE_KINDS) + "].filter(x, x).size() == 1"
)


class Gate(ApiModel):
    """One declared criterion; exactly one kind is set."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                _EXACTLY_ONE,
                "exactly one kind of gate must be set: "
                + ", ".join(f"`{kind}`" for kind in GATE_KINDS),
            )
        )
    )

    name: DnsLabel
    """Name of the gate, unique in the rollout."""

    mode: GateMode = GateMode.ENFORCE
    """`Enforce` decides; `Observe` only reports its verdict."""

    latency: LatencyGate | None = None
    out_of_memory: OutOfMemoryGate | None = None
    errors: ErrorsGate | None = None
    cost: CostGate | None = None
    stability: StabilityGate | None = None
