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
    "GpuMemoryGate",
    "LatencyGate",
    "OutOfMemoryGate",
    "QueryGate",
    "StabilityGate",
    "StabilityKind",
    "TextAccuracyGate",
]


class GateMode(StrEnum):
    """Whether a gate decides or only reports."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class StabilityKind(StrEnum):
    """Which images a stability gate compares."""

    REPEAT = "Repeat"
    BATCH = "Batch"
    SEED = "Seed"
    DRIFT = "Drift"


_MEASURED_STABILITY = [StabilityKind.REPEAT.value]
"""The kinds that the probe measures: the custom resource takes no others."""

_IncreasePercent = Annotated[int, Field(ge=1, le=1000)]


class LatencyGate(ApiModel):
    """Latency: a share of requests answered within a time, or not much slower than stable's."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.maxMilliseconds) != has(self.maxIncreasePercent)",
                (
                    "exactly one of `maxMilliseconds` (with `percentile`) and "
                    "`maxIncreasePercent` must be set; declare two gates to have both"
                ),
            ),
            (
                "has(self.percentile) == has(self.maxMilliseconds)",
                "`percentile` and `maxMilliseconds` belong together: set both or neither",
            ),
            (
                (
                    "!has(self.passMarginPercent) || (has(self.maxIncreasePercent) && "
                    "self.passMarginPercent > self.maxIncreasePercent)"
                ),
                "`passMarginPercent` must be greater than `maxIncreasePercent`, and goes with it",
            ),
        )
    )

    percentile: Annotated[int, Field(ge=50, le=99)] | None = None
    """Percentile, such as 95: at most 5 percent of requests may take longer."""

    max_milliseconds: Annotated[int, Field(ge=1, le=3600000)] | None = None
    """Longest time from arrival to answer, queue included, in milliseconds."""

    max_increase_percent: _IncreasePercent | None = None
    """How much slower than stable served requests may be; slower is rolled back."""

    pass_margin_percent: Annotated[int, Field(ge=2, le=10000)] | None = None
    """Increase that must be ruled out to pass; two and a half times `maxIncreasePercent` when
    absent. The closer the two are, the more requests it takes to tell them apart."""


class OutOfMemoryGate(ApiModel):
    """Running out of memory: of the GPU (the server counts) or of the container (the kernel)."""

    max_count: Annotated[int, Field(ge=0, le=1000)]
    """Most events since the attempt began; one more rolls back at once."""

    max_times_stable: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most events per request, as a multiple of stable's; more often is rolled back although the
    count is allowed."""


class GpuMemoryGate(ApiModel):
    """The peak of GPU memory in use: how near the candidate came to running out of it."""

    max_percent: Annotated[int, Field(ge=1, le=100)]
    """Largest share of the device's memory that may ever be in use, in percent, such as 92; one
    peak beyond it rolls back at once."""


class ErrorsGate(ApiModel):
    """The share of requests that fail by the server's fault."""

    max_percent: DecimalString
    """Largest share in percent, such as '1'."""


class CostGate(ApiModel):
    """GPU time per delivered image, at the pool's price; with two limits, both must be kept."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.maxPerImage) || has(self.maxIncreasePercent)",
                "at least one of `maxPerImage` and `maxIncreasePercent` must be set",
            )
        )
    )

    max_per_image: DecimalString | None = None
    """Highest cost of one image, in the currency of the pool's price."""

    max_increase_percent: _IncreasePercent | None = None
    """How much dearer than stable's an image may be; dearer is rolled back. To pass, two and a half
    times as much must be ruled out."""


class StabilityGate(ApiModel):
    """Pixel stability deviation: how much images differ that should be equal."""

    kind: Annotated[StabilityKind, Field(json_schema_extra={"enum": _MEASURED_STABILITY})]
    """`Repeat`: same prompt, same seed, same batch shape, several runs."""

    max: DecimalString
    """Largest deviation allowed, on the scale of 0 to 1; half of one 8-bit level is '0.002'."""


class TextAccuracyGate(ApiModel):
    """How much of the words in a prompt can be read in its pictures; both limits must be kept.

    Not a kind of `Gate` yet: the probe does not read pictures.
    """

    min_percent: Annotated[int, Field(ge=1, le=99)] | None = None
    """Smallest mean accuracy over prompts, in percent."""

    max_drop_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many percentage points the mean may be below stable's, on the same prompts and seeds."""


class QueryGate(ApiModel):
    """A value that the administrator has taught the operator to ask for.

    Not a kind of `Gate` yet: the operator's configuration has no templates.
    """

    template: DnsLabel
    """Name of the administrator's query template."""

    max: DecimalString
    """Largest value allowed."""


GATE_KINDS = ("latency", "outOfMemory", "gpuMemory", "errors", "cost", "stability")
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
    gpu_memory: GpuMemoryGate | None = None
    errors: ErrorsGate | None = None
    cost: CostGate | None = None
    stability: StabilityGate | None = None

    @property
    def criterion(self) -> ApiModel | None:
        """What is declared; None when it is of a kind that this version does not know."""
        members = (getattr(self, name) for name in type(self).model_fields)
        return next((member for member in members if isinstance(member, ApiModel)), None)
