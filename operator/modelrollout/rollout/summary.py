"""Conditions: what people and programs are told about a rollout."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import ValidationError

from modelrollout.api.conditions import (
    ConditionType,
    Reason,
    condition,
    with_condition,
)
from modelrollout.api.status import (
    Attempt,
    AttemptOutcome,
    CandidateStatus,
    Condition,
    ConditionStatus,
    StageKind,
    Status,
)
from modelrollout.rollout.acceptance import Acceptance
from modelrollout.rollout.failures import allowed_out_of_memory, find_failure
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.lives import kernel_kills
from modelrollout.rollout.world import World

__all__ = ["ROLLBACK_PATIENCE", "stable_serves", "summarise", "unreadable"]

ROLLBACK_PATIENCE = timedelta(seconds=60)
"""How long a roll-back waits for stable to serve before it ends unverified."""


def stable_serves(world: World, revision: str) -> bool:
    """Return whether users reach ready pods of the stable revision, and no other revision's."""
    known = {pod.name for pod in world.revision(revision).pods}
    ready = {pod.name for pod in world.revision(revision).ready_pods}
    return (
        world.serving_revision == revision
        and bool(world.serving_pods & ready)
        and world.serving_pods <= known
    )


def summarise(inputs: Inputs, acceptance: Acceptance, status: Status) -> Status:
    """Return the status with all its conditions brought up to date."""
    conditions = status.conditions
    for item in (
        condition(
            ConditionType.ACCEPTED,
            status=acceptance.accepted,
            reason=acceptance.reason,
            message=acceptance.message,
        ),
        _ready(inputs, status),
        _promoted(inputs, acceptance, status),
        _metrics(status),
        _rollback_verified(inputs, status),
    ):
        conditions = with_condition(conditions, item, generation=inputs.generation, now=inputs.now)
    return status.model_copy(
        update={"conditions": conditions, "observed_generation": inputs.generation}
    )


def unreadable(status: Status, error: ValidationError, *, generation: int, now: datetime) -> Status:
    """Return the status of a rollout of which this operator cannot read the spec."""
    problems = "; ".join(
        f"`spec.{'.'.join(str(part) for part in item['loc'])}`: {item['msg']}"
        for item in error.errors()
    )
    said = condition(
        ConditionType.ACCEPTED, status=False, reason=Reason.SPEC_UNREADABLE, message=problems
    )
    conditions = with_condition(status.conditions, said, generation=generation, now=now)
    return status.model_copy(update={"conditions": conditions, "observed_generation": generation})


def _ready(inputs: Inputs, status: Status) -> Condition:
    if status.stable is None:
        return condition(
            ConditionType.READY,
            status=False,
            reason=Reason.NO_STABLE,
            message="no revision has been ready yet",
        )
    revision = status.stable.revision
    switching = status.candidate is not None and status.candidate.stage is StageKind.SWITCH
    serving = stable_serves(inputs.world, revision) or (
        switching and bool(inputs.world.serving_pods)
    )
    ready = len(inputs.world.revision(revision).ready_pods)
    message = f"{ready} of {inputs.spec.replicas} pods of revision {revision} are ready"
    return condition(
        ConditionType.READY,
        status=serving,
        reason=Reason.SERVING if serving else Reason.STABLE_NOT_READY,
        message=message,
    )


def _promoted(inputs: Inputs, acceptance: Acceptance, status: Status) -> Condition:
    kind = ConditionType.PROMOTED
    if status.candidate is not None:
        return _in_progress(inputs, status.candidate)
    desired = inputs.desired_revision
    if status.stable is not None and status.stable.revision == desired:
        latest = _latest(status, desired, AttemptOutcome.PROMOTED)
        if latest is None:
            return condition(kind, status=True, reason=Reason.ALREADY_STABLE)
        return condition(kind, status=True, reason=latest.reason, message=latest.message)
    if not acceptance.accepted:
        return condition(kind, status=False, reason=acceptance.reason, message=acceptance.message)
    if status.rejected is not None:
        return condition(
            kind, status=False, reason=status.rejected.reason, message=status.rejected.message
        )
    return condition(kind, status=None, reason=Reason.PENDING)


def _in_progress(inputs: Inputs, candidate: CandidateStatus) -> Condition:
    kind = ConditionType.PROMOTED
    revision = candidate.revision
    match candidate.stage:
        case StageKind.LOAD:
            finding = find_failure(
                inputs.world.revision(revision).pods,
                tested=None,
                kills=kernel_kills(candidate.out_of_memory),
                allowed_out_of_memory=allowed_out_of_memory(inputs.spec.gates),
            )
            if finding is not None:
                return condition(kind, status=None, reason=finding.reason, message=finding.message)
            why = inputs.world.revision(revision).create_error
            text = why or f"revision {revision} is being loaded"
            return condition(kind, status=None, reason=Reason.LOADING, message=text)
        case StageKind.ISOLATED:
            text = f"revision {revision} is measured in stage '{candidate.stage_name}'"
            waiting = _probe_waits(inputs.world)
            if waiting:
                text = f"{text}; {waiting}"
            return condition(kind, status=None, reason=Reason.MEASURING, message=text)
        case StageKind.PROMOTE | StageKind.SWITCH:
            text = f"revision {revision} passed and takes over from stable"
            return condition(kind, status=None, reason=Reason.PROMOTING, message=text)
        case StageKind.HELD:
            text = f"held for inspection ({candidate.reason}): {candidate.message}"
            return condition(kind, status=False, reason=Reason.HELD, message=text)
        case StageKind.ROLLBACK:
            text = f"{candidate.reason}: {candidate.message}"
            return condition(kind, status=False, reason=Reason.ROLLING_BACK, message=text)


def _probe_waits(world: World) -> str:
    """Say why there is no load, in the scheduler's or the kubelet's words."""
    for pod in world.probe.pods:
        if pod.unschedulable:
            return f"the probe waits for a node: {pod.unschedulable}"
        if pod.waiting_reason and pod.waiting_message:
            return f"the probe cannot start ({pod.waiting_reason}): {pod.waiting_message}"
    return ""


def _metrics(status: Status) -> Condition:
    """Keep what the measured stage recorded; at rest nothing is asked of Prometheus."""
    if status.candidate is not None and status.candidate.stage is StageKind.ISOLATED:
        for item in status.conditions:
            if item.type == ConditionType.METRICS_AVAILABLE:
                return item
    return condition(
        ConditionType.METRICS_AVAILABLE,
        status=None,
        reason=Reason.NOT_NEEDED,
        message="no evidence is needed now",
    )


def _rollback_verified(inputs: Inputs, status: Status) -> Condition:
    kind = ConditionType.ROLLBACK_VERIFIED
    rolling_back = status.candidate is not None and status.candidate.stage is StageKind.ROLLBACK
    latest = status.history[0] if status.history else None
    rolled_back = latest is not None and latest.outcome is not AttemptOutcome.PROMOTED
    if rolling_back or not rolled_back or latest is None:
        reason = Reason.ROLLING_BACK if rolling_back else Reason.NO_ROLLBACK
        return condition(kind, status=None, reason=reason)
    # Verified once is verified: what happens to stable later is the matter of `Ready`. A roll-back
    # passes through Unknown, so that a True found here is about the latest one.
    for item in status.conditions:
        if item.type == kind and item.status is ConditionStatus.TRUE:
            return item
    if status.stable is not None and stable_serves(inputs.world, status.stable.revision):
        return condition(
            kind,
            status=True,
            reason=Reason.STABLE_SERVES,
            message=f"after attempt {latest.attempt} with revision {latest.revision} users are "
            f"served by stable revision {status.stable.revision}",
        )
    return condition(
        kind,
        status=False,
        reason=Reason.STABLE_DOES_NOT_SERVE,
        message=f"after attempt {latest.attempt} with revision {latest.revision} no ready pod of "
        "a stable revision was seen behind the Service",
    )


def _latest(status: Status, revision: str, outcome: AttemptOutcome) -> Attempt | None:
    for item in status.history:
        if item.revision == revision and item.outcome is outcome:
            return item
    return None
