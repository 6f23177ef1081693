"""What verdicts rest on: counters of both arms and results of the probe, at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from modelrollout.api.gate_types import StabilityKind
from modelrollout.gates.totals import Totals

__all__ = [
    "Comparison",
    "Deviations",
    "Evidence",
    "PairedScores",
    "ProbeTotals",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class ProbeTotals:
    """What one probe pod measured on the candidate."""

    repeat_prompts: int
    """Prompts of which all repeats were compared."""

    repeat_deviation: float | None
    """Largest deviation between repeats so far, from 0 to 1; None before the first."""

    loading: bool
    """Whether the load phase has begun. The repeats before it come one at a time: what servers
    count until then says nothing about latency under load."""

    stable_served: int = 0
    """Requests of the load phase that stable answered."""

    stable_missed: int = 0
    """Turns of the load phase that stable was spared, because one of its requests was open."""

    candidate_served: int = 0
    """Requests of the load phase that the candidate answered."""

    candidate_missed: int = 0
    """Turns of the load phase that the candidate was not asked in, because too many of its
    requests were open."""

    @property
    def missed_share(self) -> float:
        """Part of the load that stable was spared, from 0 to 1."""
        return self.stable_missed / max(1, self.stable_missed + self.stable_served)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All evidence in Prometheus at one settled moment."""

    time: datetime
    servers: Mapping[tuple[str, str], Totals]
    """Counters by namespace and pod."""

    probes: Mapping[tuple[str, str], ProbeTotals]
    """Results by namespace and pod of the probe: those of another probe of the same rollout, an
    earlier one or one in another cluster, are apart."""

    unusable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Why a pod that has series is not among the servers or probes, by namespace and pod."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both arms did in the same time."""

    candidate: Totals
    """What happened at the candidate since the comparison began."""

    stable: Totals
    """What happened at stable since then; the sum over the pods that are compared with."""

    stable_pods: int = 1
    """Pods of stable that are summed."""


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Scores from 0 to 1 of pictures that both arms made of the same prompts and seeds."""

    candidate: Mapping[str, Sequence[float]]
    """The candidate's scores by prompt, one per seed."""

    stable: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Stable's scores of the same prompts and seeds, in the same order."""


@dataclass(frozen=True, slots=True)
class Deviations:
    """How much pictures differ that should be equal, over the prompts that were measured."""

    prompts: int
    """Prompts of which all pictures were compared."""

    largest: float | None
    """Largest deviation of any prompt, from 0 to 1; None before the first."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one candidate is judged on."""

    baseline: Totals | None
    """Counters when the warm-up was over; None before."""

    latest: Totals | None
    """Counters now; None when Prometheus has none of the pod."""

    probe: ProbeTotals | None
    container_out_of_memory: int
    """Containers that the kernel killed for their memory limit since the attempt began."""

    gpu_hour_price: Decimal
    """Price of one GPU for one hour."""

    gpu_count: int
    """GPUs of one server pod."""

    stable_gpu_hour_price: Decimal | None = None
    """Price of one of stable's GPUs for one hour; None when it is the candidate's."""

    stable_gpu_count: int | None = None
    """GPUs of one of stable's pods; None when as many as the candidate's."""

    problem: str = ""
    """Why there are no usable counters, where that is known (`Snapshot.unusable`)."""

    comparison: Comparison | None = None
    """Both arms since the same moment; None while stable has no usable counters."""

    comparison_problem: str = ""
    """Why there is no comparison, where that is known."""

    stable_silent: bool = False
    """Whether a stable is known of which nothing is at this look: its counters are missing."""

    design_effects: Mapping[str, float] = field(default_factory=dict)
    """How many times less a request says than an independent one would (`gates.blocks`), by what
    is measured; 1 for what is not in it."""

    declared_share: float | None = None
    """Share of user traffic that the candidate should get, between 0 and 1; None when it gets
    none and only the probe asks it."""

    deviations: Mapping[StabilityKind, Deviations] = field(default_factory=dict)
    """Other deviations than those between repeats, which the probe reports."""

    text_accuracy: PairedScores | None = None
    """How much of the words in a prompt could be read in its pictures."""

    queries: Mapping[str, float] = field(default_factory=dict)
    """Values of the administrator's query templates, by name."""
