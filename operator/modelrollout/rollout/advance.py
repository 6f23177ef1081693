"""One step of a rollout: from what is recorded and observed to what is recorded next."""

from __future__ import annotations

from modelrollout.api.conditions import Reason, parse_time
from modelrollout.api.status import AttemptOutcome, CandidateStatus, StageKind, Status
from modelrollout.rollout.acceptance import Acceptance, accept, with_lint
from modelrollout.rollout.failures import allowed_out_of_memory, find_failure
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.lives import follow_kills, kernel_kills, tested_pod
from modelrollout.rollout.measure import measure
from modelrollout.rollout.summary import ROLLBACK_PATIENCE, stable_serves, summarise
from modelrollout.rollout.transitions import (
    begin_rollback,
    enter,
    fail,
    finish_promotion,
    finish_rollback,
    inconclusive,
    start_attempt,
    with_trouble,
)

__all__ = ["advance"]

MOST_RELOADS = 5
"""How often the trial begins anew because a node ended the candidate's pod."""

SWITCH_SETTLE_SECONDS = 3.0
"""How long the previous pods go on serving after the new ones are behind the Service, so that
every node's proxy has learnt of the change."""

SWITCH_PATIENCE_SECONDS = 30
"""How long the switch may take before users go back to the previous pods, which still run."""


def advance(inputs: Inputs) -> Status:
    """Return the next status.

    A pure function: it holds every decision that the operator takes, and takes it on nothing but
    its argument. Several transitions may follow each other in one step.
    """
    acceptance = accept(inputs.spec, inputs.catalogue, inputs.world)
    status = inputs.status
    while True:
        following = _step(inputs, acceptance, status)
        if following == status:
            break
        restaged = _stage(following) != _stage(status)
        status = following
        # What was observed is about the stage that was recorded; a new stage needs a new look.
        if restaged:
            break
    return summarise(inputs, *with_lint(inputs, acceptance, status))


def _stage(status: Status) -> tuple[str, str, str] | None:
    candidate = status.candidate
    if candidate is None:
        return None
    return candidate.revision, candidate.stage, candidate.stage_name


def _step(inputs: Inputs, acceptance: Acceptance, status: Status) -> Status:
    candidate = status.candidate
    if candidate is None:
        return _at_rest(inputs, acceptance, status)
    if candidate.stage is StageKind.ROLLBACK:
        return _rollback(inputs, status, candidate)
    interrupted = _interruption(inputs, acceptance, status, candidate)
    if interrupted is not None:
        return interrupted
    if candidate.stage is StageKind.HELD:
        return status
    candidate = follow_kills(candidate, inputs.world.revision(candidate.revision).pods)
    status = status.model_copy(update={"candidate": candidate})
    if _was_replaced(inputs, candidate):
        return _lost_pod(inputs, status, candidate)
    failed = _pod_failure(inputs, status, candidate)
    return failed if failed != status else _proceed(inputs, status, candidate)


def _proceed(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    match candidate.stage:
        case StageKind.LOAD:
            return _load(inputs, status, candidate)
        case StageKind.ISOLATED:
            return _isolated(inputs, status)
        case StageKind.PROMOTE:
            return _promote(inputs, status, candidate)
        case StageKind.SWITCH:
            return _switch(inputs, status, candidate)
        case StageKind.HELD | StageKind.ROLLBACK:
            return status


def _at_rest(inputs: Inputs, acceptance: Acceptance, status: Status) -> Status:
    desired = inputs.desired_revision
    if status.stable is not None and status.stable.revision == desired:
        return status.model_copy(update={"rejected": None})
    if not acceptance.accepted:
        return status
    rejected = status.rejected
    if (
        rejected is not None
        and rejected.revision == desired
        and rejected.criteria == inputs.criteria
        and inputs.commands.retry != desired
    ):
        return status
    return start_attempt(status, inputs.spec, desired, inputs.criteria, inputs.now)


def _interruption(
    inputs: Inputs, acceptance: Acceptance, status: Status, candidate: CandidateStatus
) -> Status | None:
    """Whatever ends or restarts an attempt from outside: a new spec, a command."""
    if candidate.revision != inputs.desired_revision:
        why = f"revision {candidate.revision} is no longer what the spec declares"
        return begin_rollback(status, AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED, why, inputs.now)
    if not acceptance.accepted:
        return begin_rollback(
            status, AttemptOutcome.SUPERSEDED, acceptance.reason, acceptance.message, inputs.now
        )
    if inputs.commands.abort == candidate.revision:
        return begin_rollback(
            status,
            AttemptOutcome.ABORTED,
            Reason.ABORTED,
            f"revision {candidate.revision} was aborted by annotation",
            inputs.now,
        )
    if candidate.stage is StageKind.HELD:
        return _release(inputs, status, candidate)
    # Once users are on the candidate, other criteria are for the next one.
    if candidate.stage is not StageKind.SWITCH and candidate.criteria != inputs.criteria:
        return _reload(inputs, status, criteria=inputs.criteria)
    return None


def _release(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status | None:
    """Let a held candidate go for another attempt, on fresh pods: these may be past help."""
    retried = inputs.commands.retry == candidate.revision
    if not retried and candidate.criteria == inputs.criteria:
        return None
    why = "retried by annotation" if retried else "judged by other criteria now"
    return begin_rollback(
        status,
        AttemptOutcome.SUPERSEDED,
        Reason.RETRIED,
        f"revision {candidate.revision} was held ({candidate.reason}) and is {why}",
        inputs.now,
    )


def _was_replaced(inputs: Inputs, candidate: CandidateStatus) -> bool:
    """Return whether the pod that is measured, or was tested, is no more.

    Its node ended it, or somebody deleted it: nothing that the model did. A crash leaves the pod.
    """
    if candidate.stage not in {StageKind.ISOLATED, StageKind.PROMOTE}:
        return False
    return tested_pod(inputs.world, candidate) is None


def _lost_pod(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    """Begin the trial anew, a few times: a pod that no node keeps is never measured."""
    if candidate.reloads >= MOST_RELOADS:
        return inconclusive(
            status,
            inputs.spec,
            Reason.POD_LOST,
            f"the candidate's pod was lost to its node {candidate.reloads + 1} times while under "
            "trial; see the node's events",
            inputs.now,
        )
    reloaded = _reload(inputs, status, criteria=candidate.criteria)
    if reloaded.candidate is None:
        return reloaded
    counted = reloaded.candidate.model_copy(update={"reloads": candidate.reloads + 1})
    return reloaded.model_copy(update={"candidate": counted})


def _reload(inputs: Inputs, status: Status, *, criteria: str) -> Status:
    """Back to the first stage with fresh evidence, keeping the pods where they can be kept."""
    restarted = enter(
        status,
        StageKind.LOAD,
        inputs.now,
        deadline_seconds=inputs.spec.strategy.deadlines.load_seconds,
        stage_name=inputs.spec.strategy.stages[0].name,
    )
    candidate = restarted.candidate
    if candidate is None:
        return restarted
    candidate = candidate.model_copy(
        update={
            "criteria": criteria,
            "beginnings": candidate.beginnings if criteria == candidate.criteria else 0,
            "requests": "",
            "reason": "",
            "message": "",
            "decided_time": None,
            "outcome": None,
        }
    )
    return restarted.model_copy(update={"candidate": candidate, "gates": [], "verdict": ""})


def _pod_failure(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    """Return the status after what the candidate's pods suffer from, if that counts yet."""
    finding = find_failure(
        inputs.world.revision(candidate.revision).pods,
        tested=candidate.tested_pod,
        kills=kernel_kills(candidate.out_of_memory),
        allowed_out_of_memory=allowed_out_of_memory(inputs.spec.gates),
    )
    if finding is None or finding.grace is None:
        return with_trouble(status, None, inputs.now)
    status = with_trouble(status, finding.reason, inputs.now)
    if status.candidate is None or status.candidate.trouble is None:
        raise ValueError("trouble was recorded and is not there")
    if inputs.now - parse_time(status.candidate.trouble.since) < finding.grace:
        return status
    return fail(status, inputs.spec, finding.reason, finding.message, inputs.now)


def _load(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    revision = inputs.world.revision(candidate.revision)
    if revision.replicas is not None and revision.ready_pods:
        if status.stable is None:
            return finish_promotion(
                status,
                inputs.spec,
                Reason.FIRST_REVISION,
                "the first revision serves on readiness alone: there is nothing to compare it "
                "with, and no user to protect",
                inputs.now,
            )
        return enter(
            status,
            StageKind.ISOLATED,
            inputs.now,
            deadline_seconds=inputs.spec.strategy.deadlines.analysis_seconds,
            tested=revision.ready_pods[0],
        )
    if not _overdue(inputs, candidate):
        return status
    return _not_ready_in_time(inputs, status, candidate)


def _not_ready_in_time(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    revision = inputs.world.revision(candidate.revision)
    finding = find_failure(
        revision.pods,
        tested=None,
        kills=kernel_kills(candidate.out_of_memory),
        allowed_out_of_memory=allowed_out_of_memory(inputs.spec.gates),
    )
    unplaced = finding is not None and finding.reason is Reason.UNSCHEDULABLE
    if unplaced or revision.create_error:
        if status.stable is None:
            # The first revision waits for room as long as it takes: nothing else could serve. The
            # time to load it begins when it has found room.
            limit = inputs.spec.strategy.deadlines.load_seconds
            return enter(status, StageKind.LOAD, inputs.now, deadline_seconds=limit)
        why = finding.message if finding is not None else revision.create_error
        return inconclusive(status, inputs.spec, Reason.UNSCHEDULABLE, why, inputs.now)
    limit = inputs.spec.strategy.deadlines.load_seconds
    why = f": {finding.message}" if finding is not None else ""
    return fail(
        status,
        inputs.spec,
        Reason.LOAD_DEADLINE,
        f"the candidate was not ready within {limit} s (`strategy.deadlines.loadSeconds`){why}",
        inputs.now,
    )


def _isolated(inputs: Inputs, status: Status) -> Status:
    failed = inputs.world.probe.failed
    if failed:
        return inconclusive(
            status,
            inputs.spec,
            Reason.PROBE_FAILED,
            f"the probe ended without driving the load ({failed}); "
            "the candidate is not to blame: see the log of the Job's pods",
            inputs.now,
        )
    return measure(inputs, status)


def _promote(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    ready = len(inputs.world.revision(candidate.revision).ready_pods)
    if ready >= inputs.spec.replicas:
        return enter(status, StageKind.SWITCH, inputs.now)
    if not _overdue(inputs, candidate):
        return status
    return _not_ready_in_time(inputs, status, candidate)


def _switch(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    world = inputs.world
    if world.serving_revision != candidate.revision:
        return status
    if candidate.deadline_time is None:
        # Time counts from the first look that finds users switched, however late that is.
        return enter(status, StageKind.SWITCH, inputs.now, deadline_seconds=SWITCH_PATIENCE_SECONDS)
    tested = {pod.name for pod in world.revision(candidate.revision).ready_pods}
    served = bool(world.serving_pods) and world.serving_pods <= tested
    elapsed = (inputs.now - parse_time(candidate.stage_started_time)).total_seconds()
    if served and elapsed >= SWITCH_SETTLE_SECONDS:
        return finish_promotion(
            status,
            inputs.spec,
            Reason.PROMOTED,
            f"revision {candidate.revision} passed all enforced gates and serves users with the "
            "pods that were tested",
            inputs.now,
        )
    unserved = not world.serving_pods and elapsed >= SWITCH_SETTLE_SECONDS
    if unserved or _overdue(inputs, candidate):
        return begin_rollback(
            status,
            AttemptOutcome.ROLLED_BACK,
            Reason.SWITCH_DEADLINE,
            "the tested pods were not all behind the Service; users are back on the previous ones",
            inputs.now,
        )
    return status


def _rollback(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    revision = inputs.world.revision(candidate.revision)
    out = revision.replicas is None and all(pod.terminating for pod in revision.pods)
    if not out:
        return status
    elapsed = (inputs.now - parse_time(candidate.stage_started_time)).total_seconds()
    verified = status.stable is None or stable_serves(inputs.world, status.stable.revision)
    if verified or elapsed >= ROLLBACK_PATIENCE.total_seconds():
        return finish_rollback(status, inputs.now)
    return status


def _overdue(inputs: Inputs, candidate: CandidateStatus) -> bool:
    return candidate.deadline_time is not None and inputs.now >= parse_time(candidate.deadline_time)
