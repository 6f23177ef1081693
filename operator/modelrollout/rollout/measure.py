"""The measured stage of an attempt: judge the evidence, decide."""

from __future__ import annotations

from datetime import datetime

from modelrollout.api.conditions import (
    ConditionType,
    Reason,
    condition,
    format_time,
    parse_time,
    with_condition,
)
from modelrollout.api.status import CandidateStatus, ConditionStatus, StageKind, Status
from modelrollout.gates.evidence import Evidence
from modelrollout.gates.judge import Assessment, evaluate
from modelrollout.gates.stability import FEWEST_PROMPTS
from modelrollout.gates.verdict import Verdict
from modelrollout.rollout.evidence import gather, is_exhausted
from modelrollout.rollout.inputs import Inputs, MetricsFailure
from modelrollout.rollout.transitions import enter, fail, inconclusive

__all__ = ["measure"]


def measure(inputs: Inputs, status: Status) -> Status:
    """Return the status after one look at the evidence.

    Without Prometheus nothing is decided, and the deadline stands still until it answers again.
    """
    candidate = status.candidate
    if inputs.metrics is None or candidate is None:
        return status
    if isinstance(inputs.metrics, MetricsFailure):
        return _metrics_condition(inputs, status, inputs.metrics)
    status = _metrics_condition(inputs, _thawed(inputs, status), None)
    snapshot = inputs.metrics
    if snapshot.time < parse_time(candidate.stage_started_time):
        return status
    status, evidence = gather(inputs, status, snapshot)
    assessment = evaluate(
        inputs.spec.gates,
        inputs.spec.analysis,
        evidence,
        stages=len(inputs.spec.strategy.stages),
    )
    status = _with_assessment(inputs, status, evidence, assessment)
    return _decide(inputs, status, assessment)


def _with_assessment(
    inputs: Inputs, status: Status, evidence: Evidence, assessment: Assessment
) -> Status:
    if status.candidate is None:
        raise ValueError("there is no attempt in progress")
    begun = status.candidate.baseline is not None
    progress = _progress(inputs, evidence, assessment, begun=begun)
    return status.model_copy(
        update={
            "gates": [result.to_status() for result in assessment.results],
            "verdict": assessment.verdict.value,
            "candidate": status.candidate.model_copy(update={"requests": progress}),
        }
    )


def _progress(inputs: Inputs, evidence: Evidence, assessment: Assessment, *, begun: bool) -> str:
    """Say how far the measurement is: requests under load, or the repeats that come before."""
    probe = evidence.probe
    loading = begun if probe is None else probe.loading
    if not loading:
        prompts = 0 if probe is None else min(probe.repeat_prompts, FEWEST_PROMPTS)
        return f"repeats {prompts}/{FEWEST_PROMPTS}"
    return f"{assessment.requests}/{inputs.spec.analysis.max_requests}"


def _decide(inputs: Inputs, status: Status, assessment: Assessment) -> Status:
    candidate = status.candidate
    if candidate is None:
        raise ValueError("there is no attempt in progress")
    if assessment.verdict is Verdict.FAIL:
        return fail(status, inputs.spec, Reason.GATE_FAILED, assessment.message, inputs.now)
    if is_exhausted(candidate):
        why = (
            f"the evidence has begun {candidate.beginnings} times in this stage and does not begin "
            "again: each time the container was restarted, its counters went back, the pod was "
            "lost or the probe began anew; see what becomes of them"
        )
        return inconclusive(status, inputs.spec, Reason.INCONCLUSIVE, why, inputs.now)
    if assessment.verdict is Verdict.PASS:
        return _next_stage(inputs, status, candidate)
    limit = inputs.spec.analysis.max_requests
    overdue = candidate.deadline_time is not None and inputs.now >= parse_time(
        candidate.deadline_time
    )
    if assessment.requests >= limit:
        why = f"undecided after {assessment.requests} of at most {limit} requests"
    elif overdue:
        why = (
            f"undecided after {inputs.spec.strategy.deadlines.analysis_seconds} s "
            "(`strategy.deadlines.analysisSeconds`)"
        )
    else:
        return status
    return inconclusive(
        status, inputs.spec, Reason.INCONCLUSIVE, f"{why}: {assessment.message}", inputs.now
    )


def _next_stage(inputs: Inputs, status: Status, candidate: CandidateStatus) -> Status:
    names = [stage.name for stage in inputs.spec.strategy.stages]
    following = names[names.index(candidate.stage_name) + 1 :]
    deadlines = inputs.spec.strategy.deadlines
    if following:
        return enter(
            status,
            StageKind.ISOLATED,
            inputs.now,
            deadline_seconds=deadlines.analysis_seconds,
            stage_name=following[0],
        )
    return enter(status, StageKind.PROMOTE, inputs.now, deadline_seconds=deadlines.load_seconds)


def _metrics_condition(inputs: Inputs, status: Status, failure: MetricsFailure | None) -> Status:
    answer = (
        condition(ConditionType.METRICS_AVAILABLE, status=True, reason=Reason.ANSWERING, message="")
        if failure is None
        else condition(
            ConditionType.METRICS_AVAILABLE,
            status=False,
            reason=failure.reason,
            message=f"{failure.message}; nothing is decided and the deadline stands still",
        )
    )
    conditions = with_condition(
        status.conditions, answer, generation=inputs.generation, now=inputs.now
    )
    return status.model_copy(update={"conditions": conditions})


def _thawed(inputs: Inputs, status: Status) -> Status:
    """Move the deadline by as long as Prometheus was away."""
    candidate = status.candidate
    away_since = _away_since(status)
    if candidate is None or candidate.deadline_time is None or away_since is None:
        return status
    began = max(away_since, parse_time(candidate.stage_started_time))
    deadline = parse_time(candidate.deadline_time) + (inputs.now - began)
    changed = candidate.model_copy(update={"deadline_time": format_time(deadline)})
    return status.model_copy(update={"candidate": changed})


def _away_since(status: Status) -> datetime | None:
    for item in status.conditions:
        if item.type == ConditionType.METRICS_AVAILABLE and item.status is ConditionStatus.FALSE:
            return parse_time(item.last_transition_time)
    return None
