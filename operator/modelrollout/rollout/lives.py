"""The lives of the candidate's containers, and how often memory ran out in them.

A container that is restarted counts from 0, and the kubelet tells of its latest end only. What
happened before is kept in status: gates count the events since the attempt began.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from modelrollout.api.conditions import format_precise_time, parse_time
from modelrollout.api.status import (
    MOST_EVENTS,
    CandidateStatus,
    ComparedPod,
    MeasuredLife,
    MemoryEvents,
    PodEnds,
)
from modelrollout.gates.evidence import Snapshot
from modelrollout.gates.totals import Totals
from modelrollout.rollout.inputs import Inputs
from modelrollout.rollout.world import Pod, World

__all__ = [
    "counters_of_life",
    "follow_kills",
    "follow_life",
    "kernel_kills",
    "since_the_attempt_began",
    "tested_pod",
    "without_evidence",
]

_MOST_PODS: Final = 16
"""Pods of which ends are kept, those with kills first."""


def tested_pod(world: World, candidate: CandidateStatus) -> Pod | None:
    """Return the pod under trial, or ``None`` when it is gone or on its way out."""
    for pod in world.revision(candidate.revision).pods:
        tested = candidate.tested_pod is not None and pod.uid == candidate.tested_pod.uid
        if tested and not pod.terminating and not pod.evicted:
            return pod
    return None


# -- kills by the kernel ---------------------------------------------------------------------------
def follow_kills(candidate: CandidateStatus, pods: Iterable[Pod]) -> CandidateStatus:
    """Return the record with the kills that the candidate's pods tell of now.

    A pod whose last end was a kill counts with all its ends since it was last seen, because an end
    for another reason has its own finding. What a pod does on its way out is no evidence.
    """
    events = candidate.out_of_memory
    known = {item.uid: item for item in events.pods}
    followed: list[PodEnds] = []
    for pod in pods:
        before = known.pop(pod.uid, PodEnds(uid=pod.uid))
        followed.append(before if pod.terminating or pod.evicted else _ends(before, pod))
    ended = sorted(followed, key=lambda item: (-item.kills, item.uid))
    gone = sum(item.kills for item in known.values())
    changes = {
        "pods": [item for item in ended if item.ends][:_MOST_PODS],
        "kernel_earlier": min(MOST_EVENTS, events.kernel_earlier + gone),
    }
    return candidate.model_copy(update={"out_of_memory": events.model_copy(update=changes)})


def kernel_kills(events: MemoryEvents) -> int:
    """Return how often the kernel killed a container of the candidate for its memory limit."""
    return events.kernel_earlier + sum(item.kills for item in events.pods)


def _ends(before: PodEnds, pod: Pod) -> PodEnds:
    # A container that has ended and was not started again yet is no restart.
    ends = max(before.ends, pod.restarts, 0 if pod.last_termination is None else 1)
    killed = pod.last_termination is not None and pod.last_termination.reason == "OOMKilled"
    kills = before.kills + (ends - before.ends if killed else 0)
    return PodEnds(uid=pod.uid, ends=min(MOST_EVENTS, ends), kills=min(MOST_EVENTS, kills))


# -- the life that is measured ---------------------------------------------------------------------
def follow_life(inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot) -> CandidateStatus:
    """Return the record with the life that is measured, and the events its server counted.

    Evidence does not go on from one life to the next: the counters of the new one can have
    outgrown those of the old one by the time they are looked at.
    """
    pod = tested_pod(inputs.world, candidate)
    if pod is None:
        return candidate
    identity, life = ComparedPod(uid=pod.uid, restarts=pod.restarts), candidate.life
    if life is None or life.pod != identity:
        since = candidate.stage_started_time
        if life is not None:
            candidate = without_evidence(candidate)
            if life.pod.uid == pod.uid:
                # Its earlier life was scraped before it ended, one interval before now at most.
                since = format_precise_time(inputs.now + inputs.scrape_interval)
        life = MeasuredLife(pod=identity, since=since)
        candidate = candidate.model_copy(update={"life": life})
    totals = snapshot.servers.get((inputs.namespace, pod.name))
    return candidate if totals is None else _with_events(candidate, life, snapshot, totals)


def counters_of_life(
    inputs: Inputs, candidate: CandidateStatus, snapshot: Snapshot
) -> Totals | None:
    """Return the counters of the life that is measured; None while there are none."""
    pod, life = tested_pod(inputs.world, candidate), candidate.life
    if pod is None or life is None or not _settled(life, snapshot):
        return None
    return snapshot.servers.get((inputs.namespace, pod.name))


def since_the_attempt_began(totals: Totals, candidate: CandidateStatus) -> Totals:
    """Return counters of a life with the times that memory ran out in the lives before."""
    earlier = candidate.out_of_memory.server_earlier
    return replace(totals, out_of_memory=totals.out_of_memory + earlier)


def without_evidence(candidate: CandidateStatus) -> CandidateStatus:
    """Return the record without what was measured, which cannot be continued."""
    record = candidate.comparison
    if record is not None:
        record = record.model_copy(update={"candidate": None, "stable": [], "notice": ""})
    return candidate.model_copy(
        update={"baseline": None, "warmed_up": False, "blocks": None, "comparison": record}
    )


def _settled(life: MeasuredLife, snapshot: Snapshot) -> bool:
    """Tell whether counters are those of this life."""
    return snapshot.time >= parse_time(life.since)


def _with_events(
    candidate: CandidateStatus, life: MeasuredLife, snapshot: Snapshot, totals: Totals
) -> CandidateStatus:
    events, count = candidate.out_of_memory, min(MOST_EVENTS, totals.out_of_memory)
    if life.counted or not _settled(life, snapshot):
        changes = {"server": max(events.server, count)}
        return candidate.model_copy(update={"out_of_memory": events.model_copy(update=changes)})
    changes = {
        "server": count,
        "server_earlier": min(MOST_EVENTS, events.server_earlier + events.server),
    }
    return candidate.model_copy(
        update={
            "out_of_memory": events.model_copy(update=changes),
            "life": life.model_copy(update={"counted": True}),
        }
    )
