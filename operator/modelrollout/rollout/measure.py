"""The measured stage of an attempt: gather evidence, judge it, decide."""

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
from modelrollout.gates.evidence import Evidence, ProbeTotals, Snapshot
from modelrollout.gates.judge import Assessment, evaluate, latency_edges
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.gates.verdict import Verdict
from modelrollout.rollout.failures import container_out_of_memory_count
from modelrollout.rollout.inputs import Inputs, MetricsFailure
from modelrollout.rollout.transitions import enter, fail, inconclusive
from modelrollout.rollout.world import Pod, World

__all__ = ["measure", "tested_pod"]


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
    latest = _candidate_totals(inputs, candidate, snapshot)
    probe = _probe_totals(inputs, snapshot)
    status = _with_baseline(inputs, status, latest, probe)
    assessment = _assess(inputs, status, snapshot, latest, probe)
    status = _with_assessment(inputs, status, assessment)
    return _decide(inputs, status, assessment)


def tested_pod(world: World, candidate: CandidateStatus) -> Pod | None:
    """Return the pod under trial, or ``None`` when it is gone or on its way out."""
    for pod in world.revision(candidate.revision).pods:
        tested = candidate.tested_pod is not None and pod.uid == candidate.tested_pod.uid
        if tested and not pod.terminating and not pod.evicted:
            return pod
    return None


def _candidate_totals(
    inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot
) -> Totals | None:
    pod = tested_pod(inputs.world, candidate)
    return None if pod is None else snapshot.servers.get((inputs.namespace, pod.name))


def _probe_totals(inputs: Inputs, snapshot: Snapshot) -> ProbeTotals | None:
    for pod in inputs.world.probe.pods:
        totals = snapshot.probes.get((inputs.namespace, pod.name))
        if totals is not None and not pod.terminating:
            return totals
    return None


def _with_baseline(
    inputs: Inputs, status: Status, latest: Totals | None, probe: ProbeTotals | None
) -> Status:
    """Take the counters from which evidence is counted: when load begins, and after warm-up.

    What the probe asks before, one request at a time, is not what a candidate is like under load.
    """
    candidate = status.candidate
    if candidate is None or latest is None or probe is None:
        return status
    if not probe.loading:
        # Not begun, or a probe that began anew: its repeats must not count as load.
        idle = candidate.model_copy(update={"baseline": None, "warmed_up": False})
        return status.model_copy(update={"candidate": idle})
    warmup = inputs.spec.analysis.warmup_requests
    try:
        served = _served_since(candidate, latest)
    except Incomparable:
        # Another pod, or the same one restarted: the evidence so far cannot be continued.
        warmed_up = warmup == 0
    else:
        if candidate.warmed_up or served < warmup:
            return status
        warmed_up = True
    baseline = latest.to_baseline(latency_edges(inputs.spec.gates))
    changed = candidate.model_copy(update={"baseline": baseline, "warmed_up": warmed_up})
    return status.model_copy(update={"candidate": changed})


def _served_since(candidate: CandidateStatus, latest: Totals) -> int:
    if candidate.baseline is None:
        raise Incomparable("NoBaseline", "no counters were taken yet")
    grown = latest.since(Totals.from_baseline(candidate.baseline))
    return grown.succeeded + grown.failed


def _assess(
    inputs: Inputs,
    status: Status,
    snapshot: Snapshot,
    latest: Totals | None,
    probe: ProbeTotals | None,
) -> Assessment:
    candidate = status.candidate
    if candidate is None:
        raise ValueError("there is no attempt in progress")
    baseline = None
    if candidate.warmed_up and candidate.baseline is not None:
        baseline = Totals.from_baseline(candidate.baseline)
    return evaluate(
        inputs.spec.gates,
        inputs.spec.analysis,
        Evidence(
            baseline=baseline,
            # Without the probe's word on load, nobody knows what the counters are counters of.
            latest=latest if probe is not None else None,
            probe=probe,
            container_out_of_memory=container_out_of_memory_count(
                inputs.world.revision(candidate.revision).pods
            ),
            gpu_hour_price=inputs.catalogue.gpu_hour_prices[inputs.spec.pool],
            gpu_count=inputs.spec.serving.gpu.count,
            problem=_problem(inputs, candidate, snapshot),
        ),
    )


def _problem(inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot) -> str:
    """Say why there are no counters that can be used, in the collector's words if it has any."""
    pods = (*inputs.world.revision(candidate.revision).ready_pods, *inputs.world.probe.pods)
    for pod in pods:
        found = snapshot.unusable.get((inputs.namespace, pod.name))
        if found is not None:
            return found
    if _probe_totals(inputs, snapshot) is None:
        return "Prometheus has no results of the probe yet"
    return ""


def _with_assessment(inputs: Inputs, status: Status, assessment: Assessment) -> Status:
    if status.candidate is None:
        raise ValueError("there is no attempt in progress")
    progress = f"{assessment.requests}/{inputs.spec.analysis.max_requests}"
    return status.model_copy(
        update={
            "gates": [result.to_status() for result in assessment.results],
            "verdict": assessment.verdict.value,
            "candidate": status.candidate.model_copy(update={"requests": progress}),
        }
    )


def _decide(inputs: Inputs, status: Status, assessment: Assessment) -> Status:
    candidate = status.candidate
    if candidate is None:
        raise ValueError("there is no attempt in progress")
    if assessment.verdict is Verdict.FAIL:
        return fail(status, inputs.spec, Reason.GATE_FAILED, assessment.message, inputs.now)
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
