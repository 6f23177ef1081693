"""From one snapshot to the evidence on which a candidate is judged, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from modelrollout.api.block_status import BlocksStatus
from modelrollout.api.status import CandidateStatus, Status
from modelrollout.gates.blocks import LOG_SECONDS, Blocks
from modelrollout.gates.evidence import Comparison, Evidence, ProbeTotals, Snapshot
from modelrollout.gates.judge import latency_edges
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.rollout.comparison import compare, follow_comparison
from modelrollout.rollout.failures import container_out_of_memory_count
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.world import Pod, World

__all__ = ["gather", "tested_pod"]

_UNKNOWN_PRICE = Decimal("NaN")


def gather(inputs: Inputs, status: Status, snapshot: Snapshot) -> tuple[Status, Evidence]:
    """Return the evidence at one moment, and the status with what the next look needs of it.

    Raises
    ------
    ValueError
        When no attempt is in progress.
    """
    candidate = status.candidate
    if candidate is None:
        raise ValueError("there is no attempt in progress")
    probe = _probe_totals(inputs, snapshot)
    # Without the probe's word on load, nobody knows what the counters are counters of.
    latest = None if probe is None else _candidate_totals(inputs, candidate, snapshot)
    candidate = _with_baseline(inputs, candidate, latest, probe)
    candidate = follow_comparison(inputs, candidate, snapshot, latest)
    comparison, comparison_problem = compare(inputs, candidate, snapshot, latest)
    baseline: Totals | None = None
    effects: dict[str, float] = {}
    if candidate.warmed_up and candidate.baseline is not None:
        baseline = Totals.from_baseline(candidate.baseline)
        if latest is not None:
            measured = latest.since(baseline)
            candidate, effects = _with_blocks(inputs, candidate, measured, comparison)
    price, gpus = _stable_gpus(inputs, status)
    evidence = Evidence(
        baseline=baseline,
        latest=latest,
        probe=probe,
        container_out_of_memory=container_out_of_memory_count(
            inputs.world.revision(candidate.revision).pods
        ),
        gpu_hour_price=inputs.catalogue.gpu_hour_prices[inputs.spec.pool],
        gpu_count=inputs.spec.serving.gpu.count,
        stable_gpu_hour_price=price,
        stable_gpu_count=gpus,
        problem=_problem(inputs, candidate, snapshot),
        comparison=comparison,
        comparison_problem=comparison_problem,
        design_effects=effects,
    )
    return status.model_copy(update={"candidate": candidate}), evidence


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
    inputs: Inputs, candidate: CandidateStatus, latest: Totals | None, probe: ProbeTotals | None
) -> CandidateStatus:
    """Take the counters from which evidence is counted: when load begins, and after warm-up.

    What the probe asks before, one request at a time, is not what a candidate is like under load.
    """
    if latest is None or probe is None:
        return candidate
    if not probe.loading:
        # Not begun, or a probe that began anew: its repeats must not count as load.
        return candidate.model_copy(update={"baseline": None, "warmed_up": False})
    warmup = inputs.spec.analysis.warmup_requests
    try:
        served = _served_since(candidate, latest)
    except Incomparable:
        # Another pod, or the same one restarted: the evidence so far cannot be continued.
        warmed_up = warmup == 0
    else:
        if candidate.warmed_up or served < warmup:
            return candidate
        warmed_up = True
    baseline = latest.to_baseline(latency_edges(inputs.spec.gates))
    return candidate.model_copy(
        update={"baseline": baseline, "warmed_up": warmed_up, "blocks": None}
    )


def _served_since(candidate: CandidateStatus, latest: Totals) -> int:
    if candidate.baseline is None:
        raise Incomparable("NoBaseline", "no counters were taken yet")
    grown = latest.since(Totals.from_baseline(candidate.baseline))
    return grown.succeeded + grown.failed


def _with_blocks(
    inputs: Inputs, candidate: CandidateStatus, measured: Totals, comparison: Comparison | None
) -> tuple[CandidateStatus, dict[str, float]]:
    """Add what is new to the blocks of requests; return also what they say of the evidence."""
    edges = latency_edges(inputs.spec.gates)
    before = Blocks.from_status(candidate.blocks or BlocksStatus())
    blocks = before.add(measured, comparison, edges)
    record = candidate.comparison
    if comparison is None and record is not None and record.candidate is not None:
        # Stable's counters are only not there at this look: its block goes on at a later one.
        kept = {key: item for key, item in before.dispersions.items() if key == LOG_SECONDS}
        blocks = replace(blocks, dispersions={**blocks.dispersions, **kept}, classes=before.classes)
    effects = blocks.design_effects(measured, comparison, edges)
    return candidate.model_copy(update={"blocks": blocks.to_status()}), effects


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


def _stable_gpus(inputs: Inputs, status: Status) -> tuple[Decimal | None, int | None]:
    """Return the price of stable's GPUs and how many a pod has, where that was recorded.

    A pool that the administrator no longer offers has no price: nothing may be compared with it.
    """
    stable = status.stable
    if stable is None or not stable.pool:
        return None, None
    return inputs.catalogue.gpu_hour_prices.get(stable.pool, _UNKNOWN_PRICE), stable.gpu_count
