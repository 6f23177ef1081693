"""From one snapshot to the evidence on which a candidate is judged, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from modelrollout.api.block_status import BlocksStatus
from modelrollout.api.status import CandidateStatus, Status
from modelrollout.gates.blocks import LOG_SECONDS, Blocks
from modelrollout.gates.evidence import Comparison, Evidence, ProbeTotals, Snapshot
from modelrollout.gates.judge import latency_edges
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.rollout.comparison import compare, follow_comparison, follow_silence
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.lives import (
    counters_of_life,
    follow_life,
    kernel_kills,
    since_the_attempt_began,
    without_evidence,
)

__all__ = ["MOST_BEGINNINGS", "gather", "is_exhausted"]

MOST_BEGINNINGS: Final = 5
"""How often the evidence of a stage begins. Each beginning is a fresh test with errors of its own,
and forgets what spoke against the candidate, so their number has to have an end."""

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
    candidate = follow_life(inputs, candidate, snapshot)
    probe = _probe_totals(inputs, snapshot)
    # Without the probe's word on load, nobody knows what the counters are counters of.
    latest = None if probe is None else counters_of_life(inputs, candidate, snapshot)
    candidate = _with_baseline(inputs, candidate, latest, probe)
    candidate = follow_comparison(inputs, candidate, snapshot, latest)
    comparison, comparison_problem = compare(inputs, candidate, snapshot, latest)
    candidate, silent = follow_silence(inputs, candidate, comparison)
    baseline: Totals | None = None
    effects: dict[str, float] = {}
    if candidate.warmed_up and candidate.baseline is not None:
        baseline = Totals.from_baseline(candidate.baseline)
        if latest is not None:
            measured = latest.since(baseline)
            candidate, effects = _with_blocks(inputs, candidate, measured, comparison)
    price, gpus = _stable_gpus(inputs, status)
    evidence = Evidence(
        baseline=None if baseline is None else since_the_attempt_began(baseline, candidate),
        latest=None if latest is None else since_the_attempt_began(latest, candidate),
        probe=probe,
        container_out_of_memory=kernel_kills(candidate.out_of_memory),
        gpu_hour_price=inputs.catalogue.gpu_hour_prices[inputs.spec.pool],
        gpu_count=inputs.spec.serving.gpu.count,
        stable_gpu_hour_price=price,
        stable_gpu_count=gpus,
        problem=_problem(inputs, candidate, snapshot),
        comparison=comparison,
        comparison_problem=comparison_problem,
        stable_silent=silent,
        design_effects=effects,
    )
    return status.model_copy(update={"candidate": candidate}), evidence


def is_exhausted(candidate: CandidateStatus) -> bool:
    """Tell whether the evidence was lost and does not begin again."""
    return not candidate.warmed_up and candidate.beginnings >= MOST_BEGINNINGS


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
        return without_evidence(candidate)
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
    if candidate.beginnings >= MOST_BEGINNINGS:
        return without_evidence(candidate)
    baseline = latest.to_baseline(latency_edges(inputs.spec.gates))
    return candidate.model_copy(
        update={
            "baseline": baseline,
            "warmed_up": warmed_up,
            "beginnings": candidate.beginnings + warmed_up,
            "blocks": None,
        }
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
    if candidate.life is not None and not candidate.life.counted:
        return "Prometheus has no counters of the candidate's container since it was started"
    return ""


def _stable_gpus(inputs: Inputs, status: Status) -> tuple[Decimal | None, int | None]:
    """Return the price of stable's GPUs and how many a pod has, where that was recorded.

    A pool that the administrator no longer offers has no price: nothing may be compared with it.
    """
    stable = status.stable
    if stable is None or not stable.pool:
        return None, None
    return inputs.catalogue.gpu_hour_prices.get(stable.pool, _UNKNOWN_PRICE), stable.gpu_count
