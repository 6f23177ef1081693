"""The steps from one recorded state of an attempt to the next."""

from __future__ import annotations

from datetime import datetime, timedelta

from modelrollout.api.conditions import (
    Reason,
    format_precise_time,
    format_time,
    parse_time,
)
from modelrollout.api.spec import OnFailure, OnInconclusive, Spec
from modelrollout.api.status import (
    HISTORY_LIMIT,
    Attempt,
    AttemptOutcome,
    CandidateStatus,
    RejectedRevision,
    StablePointer,
    StageKind,
    Status,
    TestedPod,
    Trouble,
)
from modelrollout.rollout.world import Pod

__all__ = [
    "begin_rollback",
    "enter",
    "fail",
    "finish_promotion",
    "finish_rollback",
    "inconclusive",
    "start_attempt",
    "with_trouble",
]


def start_attempt(
    status: Status, spec: Spec, revision: str, criteria: str, now: datetime
) -> Status:
    """Return the status at the beginning of an attempt: the candidate is being loaded."""
    number = status.attempts + 1
    candidate = CandidateStatus(
        revision=revision,
        attempt=number,
        stage=StageKind.LOAD,
        stage_name=spec.strategy.stages[0].name,
        criteria=criteria,
        started_time=format_time(now),
        stage_started_time=format_time(now),
        deadline_time=format_time(_later(now, spec.strategy.deadlines.load_seconds)),
    )
    return status.model_copy(
        update={
            "attempts": number,
            "candidate": candidate,
            "rejected": None,
            "gates": [],
            "verdict": "",
        }
    )


def enter(
    status: Status,
    stage: StageKind,
    now: datetime,
    *,
    deadline_seconds: int | None = None,
    stage_name: str | None = None,
    tested: Pod | None = None,
) -> Status:
    """Return the status with the candidate at the beginning of another stage.

    The tested pod stays the same from stage to stage, until the candidate is loaded anew.
    """
    candidate = _candidate(status)
    following = stage is candidate.stage is StageKind.ISOLATED
    deadline = None if deadline_seconds is None else format_time(_later(now, deadline_seconds))
    changes: dict[str, object] = {
        "stage": stage,
        "stage_name": stage_name or candidate.stage_name,
        "stage_started_time": format_time(now),
        "deadline_time": deadline,
        "baseline": None,
        "warmed_up": False,
        "beginnings": 0 if following else candidate.beginnings,
        "stable_silent_time": None,
        "comparison": None,
        "blocks": None,
        "trouble": None,
    }
    if stage is StageKind.LOAD:
        changes["tested_pod"] = None
    if tested is not None:
        changes["tested_pod"] = TestedPod(uid=tested.uid, restarts=tested.restarts)
    if stage is StageKind.PROMOTE:
        changes["decided_time"] = format_precise_time(now)
    return status.model_copy(update={"candidate": candidate.model_copy(update=changes)})


def with_trouble(status: Status, reason: Reason | None, now: datetime) -> Status:
    """Return the status with what the candidate's pods suffer from, and since when."""
    candidate = _candidate(status)
    if reason is None:
        trouble = None
    elif candidate.trouble is not None and candidate.trouble.reason == reason:
        trouble = candidate.trouble
    else:
        trouble = Trouble(reason=reason.value, since=format_precise_time(now))
    return status.model_copy(
        update={"candidate": candidate.model_copy(update={"trouble": trouble})}
    )


def fail(status: Status, spec: Spec, reason: Reason, message: str, now: datetime) -> Status:
    """Return the status after the evidence spoke against the candidate."""
    if spec.strategy.on_failure is OnFailure.HOLD:
        return _hold(status, reason, message, now)
    return begin_rollback(status, AttemptOutcome.ROLLED_BACK, reason, message, now)


def inconclusive(status: Status, spec: Spec, reason: Reason, message: str, now: datetime) -> Status:
    """Return the status after a limit was reached without proof of good or bad."""
    if spec.strategy.on_inconclusive is OnInconclusive.HOLD:
        return _hold(status, reason, message, now)
    return begin_rollback(status, AttemptOutcome.ROLLED_BACK, reason, message, now)


def begin_rollback(
    status: Status, outcome: AttemptOutcome, reason: Reason, message: str, now: datetime
) -> Status:
    """Return the status after the decision to take the candidate out."""
    return _decided(status, StageKind.ROLLBACK, reason, message, now, outcome=outcome)


def finish_rollback(status: Status, now: datetime) -> Status:
    """Return the status after the candidate is out."""
    candidate = _candidate(status)
    outcome = candidate.outcome or AttemptOutcome.ROLLED_BACK
    rejected = status.rejected
    if outcome is not AttemptOutcome.SUPERSEDED:
        rejected = RejectedRevision(
            revision=candidate.revision,
            reason=candidate.reason,
            message=candidate.message,
            criteria=candidate.criteria,
            rejected_time=format_time(now),
        )
    return _ended(status, outcome, candidate.reason, candidate.message, now).model_copy(
        update={"rejected": rejected}
    )


def finish_promotion(
    status: Status, spec: Spec, reason: Reason, message: str, now: datetime
) -> Status:
    """Return the status after the candidate, which is what the spec declares, became stable."""
    candidate = _candidate(status)
    return _ended(status, AttemptOutcome.PROMOTED, reason, message, now).model_copy(
        update={
            "stable": StablePointer(
                revision=candidate.revision,
                promoted_time=format_time(now),
                pool=spec.pool,
                gpu_count=spec.serving.gpu.count,
            ),
            "rejected": None,
        }
    )


def _hold(status: Status, reason: Reason, message: str, now: datetime) -> Status:
    return _decided(status, StageKind.HELD, reason, message, now, outcome=None)


def _decided(
    status: Status,
    stage: StageKind,
    reason: Reason,
    message: str,
    now: datetime,
    *,
    outcome: AttemptOutcome | None,
) -> Status:
    candidate = _candidate(status).model_copy(
        update={
            "stage": stage,
            "stage_started_time": format_time(now),
            "deadline_time": None,
            "baseline": None,
            "stable_silent_time": None,
            "comparison": None,
            "blocks": None,
            "trouble": None,
            "reason": reason.value,
            "message": message[:1024],
            "decided_time": format_precise_time(now),
            "outcome": outcome,
        }
    )
    return status.model_copy(update={"candidate": candidate})


def _ended(
    status: Status, outcome: AttemptOutcome, reason: str, message: str, now: datetime
) -> Status:
    candidate = _candidate(status)
    took: int | None = None
    if candidate.decided_time is not None:
        took = max(0, round((now - parse_time(candidate.decided_time)).total_seconds() * 1000))
    attempt = Attempt(
        attempt=candidate.attempt,
        revision=candidate.revision,
        outcome=outcome,
        reason=reason,
        message=message[:1024],
        started_time=candidate.started_time,
        finished_time=format_time(now),
        decision_to_done_milliseconds=took,
    )
    return status.model_copy(
        update={"candidate": None, "history": [attempt, *status.history][:HISTORY_LIMIT]}
    )


def _candidate(status: Status) -> CandidateStatus:
    if status.candidate is None:
        raise ValueError("there is no attempt in progress")
    return status.candidate


def _later(now: datetime, seconds: int) -> datetime:
    return now + timedelta(seconds=seconds)
