"""What candidate and stable are compared on: what both did since the same moment.

The comparison is apart from the candidate's own baseline. Trouble with stable's pods or series
makes it wait, or begin anew, and touches no gate that judges the candidate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from modelrollout.api.conditions import MESSAGE_LIMIT, format_precise_time, parse_time
from modelrollout.api.status import CandidateStatus, ComparedPod, ComparisonStatus
from modelrollout.gates.common_cause import ENOUGH_AT_STABLE
from modelrollout.gates.evidence import Comparison, Snapshot
from modelrollout.gates.judge import latency_edges
from modelrollout.gates.look import requests_of
from modelrollout.gates.moments import named_classes
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.world import Pod

__all__ = [
    "LONGEST_SILENCE",
    "MOST_BEGINNINGS",
    "MOST_PODS",
    "compare",
    "follow_comparison",
    "follow_silence",
]

MOST_PODS: Final = 3
"""Pods of stable that are compared with, so that status stays small however many there are."""

MOST_BEGINNINGS: Final = 5
"""How often a comparison begins in one stage. Each beginning is a fresh test with errors of its
own, so their number has to have an end."""

LONGEST_SILENCE: Final = timedelta(minutes=5)
"""How long a candidate beyond its limits may wait for a word of stable: a container that is
restarted has loaded its model by then, and a scrape that failed has been repeated many times."""


def follow_comparison(
    inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot, latest: Totals | None
) -> CandidateStatus:
    """Return the candidate's record with its comparison chosen, begun, or set back.

    Pods of stable are chosen by name from those that are ready and counted. The comparison begins
    when the candidate's warm-up is over, with counters that are no older than the choice: older
    ones can be those of an earlier life of the same pod.
    """
    record = candidate.comparison or ComparisonStatus(chosen_time=format_precise_time(inputs.now))
    if record.candidate is not None:
        why = _break(inputs, record, snapshot, latest) if candidate.warmed_up else ""
        if candidate.warmed_up and not why:
            return candidate
        record = ComparisonStatus(
            chosen_time=format_precise_time(inputs.now),
            beginnings=record.beginnings,
            notice=why[:MESSAGE_LIMIT],
        )
    pods = _choose(inputs, snapshot)
    identities = [ComparedPod(uid=pod.uid, restarts=pod.restarts) for pod in pods]
    if identities != record.pods:
        record = record.model_copy(
            update={"pods": identities, "chosen_time": format_precise_time(inputs.now)}
        )
    settled = snapshot.time >= parse_time(record.chosen_time)
    due = candidate.warmed_up and record.beginnings < MOST_BEGINNINGS
    if due and settled and pods and latest is not None:
        stable = [snapshot.servers[inputs.namespace, pod.name] for pod in pods]
        record = _begin(inputs, record, latest, stable)
    return candidate.model_copy(update={"comparison": record})


def compare(
    inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot, latest: Totals | None
) -> tuple[Comparison | None, str]:
    """Return what both arms did since the comparison began, or say why that is not known."""
    record = candidate.comparison
    if record is None or not candidate.warmed_up:
        return None, "the requests of the warm-up are not compared"
    if record.candidate is None:
        return None, _why_not_begun(inputs, record, snapshot)
    if latest is None:
        return None, "there are no counters of the candidate to compare"
    stable: list[Totals] = []
    for baseline in record.stable:
        totals = snapshot.servers.get((inputs.namespace, baseline.pod))
        if totals is None:
            return None, _no_counters(inputs, baseline.pod, snapshot)
        stable.append(totals.since(Totals.from_baseline(baseline)))
    mine = latest.since(Totals.from_baseline(record.candidate))
    return Comparison(mine, Totals.over(stable), stable_pods=len(stable)), ""


def follow_silence(
    inputs: Inputs, candidate: CandidateStatus, comparison: Comparison | None
) -> tuple[CandidateStatus, bool]:
    """Return the record with the time since when stable is silent, and whether it is to be awaited.

    Stable is silent while its counters are not known, or the comparison has just begun anew. What
    befell both arms cannot be told from the candidate's own doing then. A stable that stays silent
    is not awaited: a bad candidate has to go whether stable is ever heard of again or not.
    """
    record = candidate.comparison
    anew = record is not None and bool(record.notice)
    heard = comparison is not None and not (
        anew and requests_of(comparison.stable) < ENOUGH_AT_STABLE
    )
    if inputs.status.stable is None or not candidate.warmed_up or heard:
        return candidate.model_copy(update={"stable_silent_time": None}), False
    since = candidate.stable_silent_time or format_precise_time(inputs.now)
    awaited = inputs.now - parse_time(since) < LONGEST_SILENCE
    return candidate.model_copy(update={"stable_silent_time": since}), awaited


def _break(
    inputs: Inputs, record: ComparisonStatus, snapshot: Snapshot, latest: Totals | None
) -> str:
    """Say why the comparison cannot go on, or return an empty string.

    Counters that are not there do not break it: they are waited for.
    """
    pods = {pod.uid: pod for pod in _stable_pods(inputs)}
    for known, baseline in zip(record.pods, record.stable, strict=True):
        pod = pods.get(known.uid)
        if pod is None or pod.terminating or pod.evicted:
            return f"pod {baseline.pod} of stable is gone"
        if pod.restarts != known.restarts:
            return f"the container of pod {baseline.pod} of stable was restarted"
    pairs = [
        (baseline, snapshot.servers.get((inputs.namespace, baseline.pod)))
        for baseline in record.stable
    ]
    if record.candidate is not None:
        pairs.append((record.candidate, latest))
    for baseline, totals in pairs:
        if totals is None:
            continue
        try:
            totals.since(Totals.from_baseline(baseline))
        except Incomparable as error:
            return error.message
    return ""


def _stable_pods(inputs: Inputs) -> list[Pod]:
    """Return the pods of the stable revision by name."""
    stable = inputs.status.stable
    pods = () if stable is None else inputs.world.revision(stable.revision).pods
    return sorted(pods, key=lambda pod: pod.name)


def _choose(inputs: Inputs, snapshot: Snapshot) -> list[Pod]:
    """Choose the pods to compare with. Nothing that was measured at them has a part in it."""
    return [
        pod
        for pod in _stable_pods(inputs)
        if pod.ready
        and not pod.terminating
        and not pod.evicted
        and (inputs.namespace, pod.name) in snapshot.servers
    ][:MOST_PODS]


def _begin(
    inputs: Inputs, record: ComparisonStatus, latest: Totals, stable: Sequence[Totals]
) -> ComparisonStatus:
    """Take the counters of both arms, with the same classes of requests kept apart in each."""
    edges = latency_edges(inputs.spec.gates)
    shared = set[int].intersection(*(set(pod.within) for pod in stable))
    # A pod that was started before a gate was declared has another edge than its limit.
    above = [min((edge for edge in shared if edge >= limit), default=limit) for limit in edges]
    classes = named_classes(latest.log_moments, *(pod.log_moments for pod in stable))
    return record.model_copy(
        update={
            "candidate": latest.to_baseline(edges, classes),
            "stable": [pod.to_baseline(above, classes) for pod in stable],
            "beginnings": record.beginnings + 1,
        }
    )


def _why_not_begun(inputs: Inputs, record: ComparisonStatus, snapshot: Snapshot) -> str:
    anew = f"{record.notice}; " if record.notice else ""
    if record.beginnings >= MOST_BEGINNINGS:
        return (
            f"{anew}the comparison with stable has begun {record.beginnings} times and does not "
            "begin again: see what becomes of stable's pods"
        )
    if record.pods:
        return f"{anew}the comparison with stable begins with the next counters of its pods"
    for pod in _stable_pods(inputs):
        if pod.ready:
            return anew + _no_counters(inputs, pod.name, snapshot)
    return f"{anew}stable has no ready pod to compare with"


def _no_counters(inputs: Inputs, pod: str, snapshot: Snapshot) -> str:
    """Say why there are no counters of a pod, in the collector's words if it has any."""
    found = snapshot.unusable.get((inputs.namespace, pod))
    return found or f"Prometheus has no counters of stable's pod {pod}"
