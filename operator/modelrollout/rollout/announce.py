"""Events: what changed between two records, for people who look with ``kubectl describe``."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api.conditions import ConditionType
from modelrollout.api.status import AttemptOutcome, ConditionStatus, StageKind, Status

__all__ = ["Announcement", "announcements"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """One event: a reason for machines, a note for people."""

    reason: str
    action: str
    note: str
    warning: bool = False


def announcements(before: Status, after: Status) -> list[Announcement]:
    """Return the events that a change of the record calls for."""
    return [*_conditions(before, after), *_stages(before, after), *_endings(before, after)]


def _conditions(before: Status, after: Status) -> list[Announcement]:
    found = []
    old = {item.type: item for item in before.conditions}
    for item in after.conditions:
        was = old.get(item.type)
        if was is not None and was.status == item.status:
            continue
        if item.type == ConditionType.ACCEPTED and item.status is ConditionStatus.FALSE:
            found.append(Announcement(item.reason, "Accept", item.message, warning=True))
        if item.type == ConditionType.METRICS_AVAILABLE and (
            item.status is ConditionStatus.FALSE
            or (was is not None and was.status is ConditionStatus.FALSE)
        ):
            away = item.status is ConditionStatus.FALSE
            note = item.message if away else "Prometheus answers again; the trial goes on"
            found.append(Announcement(item.reason, "Measure", note, warning=away))
        if item.type == ConditionType.ROLLBACK_VERIFIED and item.status is not (
            ConditionStatus.UNKNOWN
        ):
            failed = item.status is ConditionStatus.FALSE
            found.append(Announcement(item.reason, "Verify", item.message, warning=failed))
    return found


def _stages(before: Status, after: Status) -> list[Announcement]:
    new, old = after.candidate, before.candidate
    if new is None:
        return []
    if old is not None and (old.attempt, old.stage, old.stage_name) == (
        new.attempt,
        new.stage,
        new.stage_name,
    ):
        return []
    subject = f"attempt {new.attempt}, revision {new.revision}"
    match new.stage:
        case StageKind.LOAD:
            return [Announcement("LoadStarted", "Load", f"{subject}: loading")]
        case StageKind.ISOLATED:
            note = f"{subject}: measuring in stage '{new.stage_name}'"
            return [Announcement("StageStarted", "Measure", note)]
        case StageKind.PROMOTE:
            return [Announcement("GatesPassed", "Promote", f"{subject}: all enforced gates passed")]
        case StageKind.SWITCH:
            note = f"{subject}: users are switched to the tested pods"
            return [Announcement("Switching", "Promote", note)]
        case StageKind.ROLLBACK | StageKind.HELD:
            action = "Rollback" if new.stage is StageKind.ROLLBACK else "Hold"
            return [Announcement(new.reason, action, f"{subject}: {new.message}", warning=True)]


def _endings(before: Status, after: Status) -> list[Announcement]:
    known = {item.attempt for item in before.history}
    found = []
    for item in after.history:
        if item.attempt in known:
            continue
        note = f"attempt {item.attempt}, revision {item.revision}: {item.message}"
        warning = item.outcome is not AttemptOutcome.PROMOTED
        found.append(Announcement(item.outcome.value, "Finish", note, warning=warning))
    return found
