"""``ModelRollout.spec``: what the user declares."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from modelrollout.api.base import ApiModel, DnsLabel, cel
from modelrollout.api.gate_types import Gate
from modelrollout.api.model import Model, Serving

__all__ = [
    "Analysis",
    "Deadlines",
    "OnFailure",
    "OnInconclusive",
    "Probe",
    "Spec",
    "Stage",
    "Strategy",
]


class OnFailure(StrEnum):
    """What happens to a candidate that failed."""

    ROLLBACK = "Rollback"
    HOLD = "Hold"


class OnInconclusive(StrEnum):
    """What happens to a candidate of which the evidence proves neither good nor bad."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"


class Probe(ApiModel):
    """Synthetic load: the same prompts with the same seeds to stable and candidate."""

    suite: DnsLabel = "default"
    """Name of a prompt suite that the server image ships."""

    requests_per_minute: Annotated[int, Field(ge=1, le=6000)] = 60
    """Requests sent to each arm in a minute, however slow the answers are."""


class Stage(ApiModel):
    """A step of an attempt, with its own evidence."""

    name: DnsLabel
    """Name of the stage, unique in the rollout."""

    probe: Probe = Probe()
    """The load under which the candidate is measured."""


class Deadlines(ApiModel):
    """How long a stage may take."""

    load_seconds: Annotated[int, Field(ge=10, le=86400)] = 1800
    """For the candidate's pods to be scheduled, loaded, warmed up and ready."""

    analysis_seconds: Annotated[int, Field(ge=10, le=604800)] = 7200
    """For the gates of a stage to be decided. It stands still while Prometheus is away."""


class Strategy(ApiModel):
    """How a candidate is tried."""

    stages: Annotated[
        list[Stage],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = [Stage(name="isolated")]  # noqa: RUF012 - pydantic copies defaults
    """Stages, in order. In each, all enforced gates must pass on evidence of that stage."""

    deadlines: Deadlines = Deadlines()

    on_failure: OnFailure = OnFailure.ROLLBACK
    """`Rollback` removes the failed candidate; `Hold` keeps its pods, without users, to look at."""

    on_inconclusive: OnInconclusive = OnInconclusive.HOLD
    """At the limit of requests or of time: `Hold` keeps the candidate, `Rollback` removes it."""


class Analysis(ApiModel):
    """How much evidence a verdict needs."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.minRequests <= self.maxRequests",
                "`minRequests` must be less than or equal to `maxRequests`",
            )
        )
    )

    confidence_percent: Annotated[int, Field(ge=80, le=99)] = 95
    """Confidence of every verdict, valid at every look."""

    warmup_requests: Annotated[int, Field(ge=0, le=10000)] = 10
    """First requests of a stage that do not count."""

    min_requests: Annotated[int, Field(ge=1, le=100000)] = 30
    """Fewest requests before a candidate can pass."""

    max_requests: Annotated[int, Field(ge=1, le=1000000)] = 300
    """Most requests; a candidate undecided by then is inconclusive."""


class Spec(ApiModel):
    """The desired model of an image-generation service, and what a new one has to prove."""

    pool: DnsLabel
    """Class of GPU capacity, defined by the administrator: nodes, priority, price."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """Server pods of the stable revision."""

    model: Model
    serving: Serving = Serving()
    strategy: Strategy = Strategy()
    analysis: Analysis = Analysis()

    gates: Annotated[
        list[Gate],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **cel(
                    (
                        "self.exists(g, !has(g.mode) || g.mode == 'Enforce')",
                        (
                            "at least one gate must have the mode 'Enforce': "
                            "a candidate is promoted on positive evidence only"
                        ),
                    ),
                    (
                        (
                            "self.exists(g, (!has(g.mode) || g.mode == 'Enforce') && "
                            "(has(g.errors) || "
                            "(has(g.latency) && has(g.latency.maxMilliseconds))))"
                        ),
                        (
                            "at least one gate with the mode 'Enforce' must be `errors`, or "
                            "`latency` with `maxMilliseconds`: "
                            "a candidate that answers nothing must not pass"
                        ),
                    ),
                ),
            },
        ),
    ]
    """Declared criteria. All enforced ones must pass; one that fails decides at once."""
