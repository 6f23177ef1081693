"""``ModelRollout.status``: what the operator observed and decided.

Small, and written only when something changed. It holds what cannot be observed again: which
revision is stable, how far the attempt is, and the counters from which its evidence is measured.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.base import ApiModel
from modelrollout.api.block_status import BlocksStatus

__all__ = [
    "HISTORY_LIMIT",
    "MOST_EVENTS",
    "Attempt",
    "AttemptOutcome",
    "CandidateStatus",
    "ClassMoments",
    "ComparedPod",
    "ComparisonStatus",
    "Condition",
    "ConditionStatus",
    "CounterBaseline",
    "EdgeCount",
    "GateStatus",
    "MeasuredLife",
    "MemoryEvents",
    "PodEnds",
    "RejectedRevision",
    "StablePointer",
    "StageKind",
    "Status",
    "TestedPod",
    "Trouble",
]

HISTORY_LIMIT = 10
"""Attempts kept in ``status.history``, newest first."""

MOST_EVENTS = 1_000_000
"""Events beyond it are no longer told apart; the largest limit on them is 1000."""

_Events = Annotated[int, Field(ge=0, le=MOST_EVENTS)]
_Text = Annotated[str, Field(max_length=1024)]
_Word = Annotated[str, Field(max_length=128)]
_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=40)]


class ConditionStatus(StrEnum):
    """Truth of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A state of the rollout, in the form of ``metav1.Condition``."""

    type: Annotated[str, Field(max_length=316)]
    status: ConditionStatus
    observed_generation: Annotated[int, Field(ge=0)] = 0
    last_transition_time: _Time
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=4096)] = ""


class StageKind(StrEnum):
    """Where an attempt is."""

    LOAD = "Load"
    ISOLATED = "Isolated"
    PROMOTE = "Promote"
    SWITCH = "Switch"
    ROLLBACK = "Rollback"
    HELD = "Held"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


class EdgeCount(ApiModel):
    """Requests answered within a bucket edge of the latency histogram."""

    edge_milliseconds: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=0)]


class ClassMoments(ApiModel):
    """Moments of the logarithm of latency in one class of requests."""

    request_class: Annotated[str, Field(max_length=63)]
    count: Annotated[int, Field(ge=0)]
    total: Annotated[str, Field(max_length=40)]
    squares: Annotated[str, Field(max_length=40)]


class CounterBaseline(ApiModel):
    """Counters of one server pod at the moment from which evidence is counted."""

    pod: Annotated[str, Field(max_length=253)]
    time: _Time
    succeeded: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=0)]
    measured: Annotated[int, Field(ge=0)]
    gpu_seconds: Annotated[str, Field(max_length=40)]
    gpu_seconds_squares: Annotated[str, Field(max_length=40)]
    busy_seconds: Annotated[str, Field(max_length=40)]
    timed: Annotated[int, Field(ge=0)]
    within: Annotated[
        list[EdgeCount],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    out_of_memory: Annotated[int, Field(ge=0)] = 0
    refused: Annotated[int, Field(ge=0)] = 0
    log_moments: Annotated[
        list[ClassMoments],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """By class of requests; the class `other` holds all that are not named."""


class ComparedPod(ApiModel):
    """A pod of stable, in one life of its container."""

    uid: Annotated[str, Field(max_length=64)]
    restarts: Annotated[int, Field(ge=0)]


class ComparisonStatus(ApiModel):
    """What candidate and stable are compared on: what both did since the same moment."""

    pods: Annotated[
        list[ComparedPod],
        Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """The pods of stable that are compared with."""

    chosen_time: _Time
    """When they were chosen; older counters may be those of an earlier life."""

    candidate: CounterBaseline | None = None
    """The candidate's counters when the comparison began; absent before."""

    stable: Annotated[
        list[CounterBaseline],
        Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """Stable's counters at the same moment, by pod."""

    beginnings: Annotated[int, Field(ge=0)] = 0
    """How often the comparison has begun."""

    notice: _Text = ""
    """Why it began anew."""


class GateStatus(ApiModel):
    """The verdict of one gate and what it rests on."""

    name: Annotated[str, Field(max_length=63)]
    verdict: _Word
    """`Pass`, `Fail`, `Inconclusive` or `Invalid`."""

    reason: _Word = ""
    """Why, in one word, such as `LimitExceeded` or `CommonCause`."""

    requests: Annotated[int, Field(ge=0)] | None = None
    """Requests (or prompts) judged."""

    needed: Annotated[int, Field(ge=0)] | None = None
    """Further requests (or prompts) until `Pass` if all are good; absent where not known."""

    estimate: _Word | None = None
    interval: _Word | None = None
    limit: _Word | None = None
    message: _Text = ""


class StablePointer(ApiModel):
    """The revision that serves users."""

    revision: Annotated[str, Field(max_length=63)]
    promoted_time: _Time
    pool: Annotated[str, Field(max_length=63)] = ""
    """The pool that its GPUs are of."""

    gpu_count: Annotated[int, Field(ge=1)] = 1
    """GPUs of one of its pods."""


class Trouble(ApiModel):
    """Something that counts against a candidate only if it lasts."""

    reason: _Word
    since: _Time


class TestedPod(ApiModel):
    """The pod that is measured; the one that is promoted has to be it."""

    __test__ = False

    uid: Annotated[str, Field(max_length=64)]
    restarts: Annotated[int, Field(ge=0)]
    """Restarts of its container when the measurement began; one more is a crash under trial."""


class MeasuredLife(ApiModel):
    """The life of the container that is measured."""

    pod: ComparedPod
    since: _Time
    """From this moment on counters are its own; older ones can be those of the life before."""

    counted: bool = False
    """Whether its own counters were seen."""


class PodEnds(ApiModel):
    """How often the container of a pod ended."""

    uid: Annotated[str, Field(max_length=64)]
    ends: _Events = 0
    kills: _Events = 0
    """Ends by the kernel, for the memory limit."""


class MemoryEvents(ApiModel):
    """How often the candidate ran out of memory since the attempt began."""

    server: _Events = 0
    """As the server counted that was seen last."""

    server_earlier: _Events = 0
    """As servers counted whose life had ended before."""

    kernel_earlier: _Events = 0
    """Kills by the kernel in pods that are gone."""

    pods: Annotated[
        list[PodEnds],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """Pods of which a container ended."""


class CandidateStatus(ApiModel):
    """The attempt in progress."""

    revision: Annotated[str, Field(max_length=63)]
    attempt: Annotated[int, Field(ge=1)]
    stage: StageKind
    stage_name: Annotated[str, Field(max_length=63)] = ""
    """Name of the declared stage that is being measured."""

    criteria: Annotated[str, Field(max_length=63)] = ""
    """Digest of the gates, analysis and strategy on which the candidate is judged."""

    started_time: _Time
    stage_started_time: _Time
    deadline_time: _Time | None = None
    tested_pod: TestedPod | None = None
    life: MeasuredLife | None = None
    out_of_memory: MemoryEvents = MemoryEvents()
    baseline: CounterBaseline | None = None
    warmed_up: bool = False
    """Whether the requests that do not count are behind; the baseline was taken then."""

    beginnings: Annotated[int, Field(ge=0, le=1000)] = 0
    """How often the evidence of this stage has begun."""

    stable_silent_time: _Time | None = None
    """Since when nothing is known of stable; absent while something is."""

    comparison: ComparisonStatus | None = None
    blocks: BlocksStatus | None = None

    linted_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec of which `Accepted` says what its gates ask of a model like stable's;
    0 while too little is known of stable."""

    reloads: Annotated[int, Field(ge=0)] = 0
    """How often its pod was lost to a node and the trial began anew."""

    trouble: Trouble | None = None
    """What its pods suffer from and may recover from."""

    requests: Annotated[str, Field(max_length=32)] = ""
    """Requests measured and their limit, such as '34/300'; before, 'repeats 3/8'."""

    reason: _Word = ""
    """Why the attempt is being rolled back or held."""

    message: _Text = ""
    decided_time: _Time | None = None
    """When the roll-back or the promotion was decided."""

    outcome: AttemptOutcome | None = None
    """How the attempt will end once its current stage is done."""


class RejectedRevision(ApiModel):
    """A revision that is not tried again until the spec changes or it is retried on purpose."""

    revision: Annotated[str, Field(max_length=63)]
    reason: _Word
    message: _Text
    criteria: Annotated[str, Field(max_length=63)] = ""
    """Digest of the gates, analysis and strategy by which it was rejected; others allow a retry."""

    rejected_time: _Time


class Attempt(ApiModel):
    """An attempt that ended."""

    attempt: Annotated[int, Field(ge=1)]
    revision: Annotated[str, Field(max_length=63)]
    outcome: AttemptOutcome
    reason: _Word
    message: _Text
    started_time: _Time
    finished_time: _Time
    decision_to_done_milliseconds: Annotated[int, Field(ge=0)] | None = None
    """Time from the decision until it was carried out and verified."""


class Status(ApiModel):
    """What the operator observed and decided."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    attempts: Annotated[int, Field(ge=0)] = 0
    """Number of the latest attempt."""

    stable: StablePointer | None = None
    candidate: CandidateStatus | None = None
    rejected: RejectedRevision | None = None
    verdict: _Word = ""
    """Verdict over all enforced gates of the attempt in progress or the latest one."""

    gates: Annotated[
        list[GateStatus],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """Gates of the attempt in progress or of the latest one."""

    history: Annotated[
        list[Attempt],
        Field(
            max_length=HISTORY_LIMIT,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["attempt"],
            },
        ),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    """Attempts that ended, newest first."""

    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = []  # noqa: RUF012 - pydantic copies defaults
