"""Conditions and their reasons: the one place where they are named.

A condition's meaning and its reasons are API; people and programs wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

from modelrollout.api.status import Condition, ConditionStatus

__all__ = [
    "MESSAGE_LIMIT",
    "ConditionType",
    "Reason",
    "condition",
    "format_precise_time",
    "format_time",
    "parse_time",
    "with_condition",
]

MESSAGE_LIMIT = 1024
"""Longest message kept; what is beyond is cut off, visibly."""


class ConditionType(StrEnum):
    """What can be true of a rollout."""

    ACCEPTED = "Accepted"
    """The spec can be used."""

    READY = "Ready"
    """The stable revision serves users."""

    PROMOTED = "Promoted"
    """The declared model is the one that serves users."""

    METRICS_AVAILABLE = "MetricsAvailable"
    """Prometheus answers. While it does not, nothing is decided and deadlines stand still."""

    ROLLBACK_VERIFIED = "RollbackVerified"
    """After the latest roll-back the stable revision was seen to serve again."""


class Reason(StrEnum):
    """Reasons of conditions, attempts and events."""

    # Accepted
    VALID = "Valid"
    UNKNOWN_POOL = "UnknownPool"
    UNKNOWN_RUNTIME = "UnknownRuntime"
    GATE_INFEASIBLE = "GateInfeasible"
    SPEC_UNREADABLE = "SpecUnreadable"
    NAME_CONFLICT = "NameConflict"

    # Ready
    SERVING = "Serving"
    STABLE_NOT_READY = "StableNotReady"
    NO_STABLE = "NoStableRevision"

    # Promoted, and stages of an attempt
    PENDING = "Pending"
    LOADING = "Loading"
    MEASURING = "Measuring"
    PROMOTING = "Promoting"
    ROLLING_BACK = "RollingBack"
    HELD = "Held"
    PROMOTED = "Promoted"
    FIRST_REVISION = "FirstRevision"
    ALREADY_STABLE = "AlreadyStable"

    # Why a candidate is rolled back or held
    GATE_FAILED = "GateFailed"
    CONTAINER_OUT_OF_MEMORY = "ContainerOutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    CRASH_LOOP = "CrashLoop"
    IMAGE_PULL = "ImagePull"
    MODEL_INVALID = "ModelInvalid"
    WARMUP_FAILED = "WarmupFailed"
    CONTAINER_CONFIG = "ContainerConfig"
    SWITCH_DEADLINE = "SwitchDeadlineExceeded"
    POD_LOST = "PodLost"
    RETRIED = "Retried"
    PROBE_FAILED = "ProbeFailed"
    READINESS_LOST = "ReadinessLost"
    UNSCHEDULABLE = "Unschedulable"
    LOAD_DEADLINE = "LoadDeadlineExceeded"
    INCONCLUSIVE = "Inconclusive"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"

    # MetricsAvailable
    ANSWERING = "Answering"
    NOT_NEEDED = "NotNeeded"

    # RollbackVerified
    STABLE_SERVES = "StableServes"
    STABLE_DOES_NOT_SERVE = "StableDoesNotServe"
    NO_ROLLBACK = "NoRollback"


def condition(
    kind: ConditionType, *, status: bool | None, reason: str, message: str = ""
) -> Condition:
    """Return a condition without times; ``None`` stands for Unknown."""
    value = {
        True: ConditionStatus.TRUE,
        False: ConditionStatus.FALSE,
        None: ConditionStatus.UNKNOWN,
    }[status]
    return Condition(
        type=kind, status=value, reason=reason, message=_cut(message), last_transition_time=""
    )


def with_condition(
    conditions: Sequence[Condition], new: Condition, *, generation: int, now: datetime
) -> list[Condition]:
    """Return the conditions with one set; its transition time moves only with its status."""
    kept = {item.type: item for item in conditions}
    old = kept.get(new.type)
    since = old.last_transition_time if old and old.status == new.status else format_time(now)
    kept[new.type] = new.model_copy(
        update={"observed_generation": generation, "last_transition_time": since}
    )
    return list(kept.values())


def format_time(moment: datetime) -> str:
    """Return a moment as the API writes it: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_precise_time(moment: datetime) -> str:
    """Return a moment with milliseconds, for times from which short durations are measured."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Return the moment that the API wrote."""
    return datetime.fromisoformat(text)


def _cut(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 2] + " …"
