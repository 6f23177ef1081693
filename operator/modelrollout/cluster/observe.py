"""From the API server's objects to the facts that decisions rest on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from modelrollout.api.conditions import parse_time
from modelrollout.api.names import COMPONENT_LABEL, REVISION_LABEL
from modelrollout.rollout.world import Pod, ProbeState, RevisionState, Termination, World

__all__ = ["world_of"]

Object = dict[str, Any]

_OUR_CONTAINERS = frozenset({"server", "probe"})
_NODE_ENDINGS = frozenset(
    {"Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"}
)


def world_of(
    *,
    deployments: Iterable[Object],
    pods: Iterable[Object],
    jobs: Iterable[Object],
    service: Object | None,
    endpoint_slices: Iterable[Object],
    name_taken: str = "",
) -> World:
    """Return what exists of a rollout.

    Parameters
    ----------
    deployments, pods, jobs
        Objects that carry the rollout's label; pods of servers and of the probe.
    service
        The stable Service, or ``None``.
    endpoint_slices
        The slices of the stable Service.
    name_taken
        Name of the stable Service when it is somebody else's.
    """
    pods_of: dict[str, list[Pod]] = defaultdict(list)
    probes: list[Pod] = []
    for pod in pods:
        of_probe = pod["metadata"]["labels"].get(COMPONENT_LABEL) == "probe"
        (probes if of_probe else pods_of[_revision(pod)]).append(_pod(pod))
    deployment_of = {_revision(item): item for item in deployments}
    revisions = {
        name: _revision_state(deployment_of.get(name), pods_of.get(name, []))
        for name in {*pods_of, *deployment_of}
    }
    selector: dict[str, str] = ((service or {}).get("spec") or {}).get("selector") or {}
    return World(
        revisions=revisions,
        serving_revision=selector.get(REVISION_LABEL),
        serving_pods=frozenset(_serving_pods(endpoint_slices)),
        probe=ProbeState(pods=tuple(probes), failed=_failed_job(jobs)),
        name_taken=name_taken,
    )


def _revision(item: Object) -> str:
    return str((item["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def _revision_state(deployment: Object | None, pods: list[Pod]) -> RevisionState:
    newest_first = tuple(sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True))
    if deployment is None or deployment["metadata"].get("deletionTimestamp"):
        return RevisionState(replicas=None, pods=newest_first)
    # Pods older than their Deployment belong to an earlier one of that name, and are going.
    begun = parse_time(deployment["metadata"]["creationTimestamp"])
    newest_first = tuple(pod for pod in newest_first if pod.created >= begun)
    create_error = ""
    for item in (deployment.get("status") or {}).get("conditions") or []:
        if item.get("type") == "ReplicaFailure" and item.get("status") == "True":
            create_error = f"pods cannot be created: {item.get('message', '')}"
    return RevisionState(
        replicas=deployment["spec"].get("replicas", 1),
        pods=newest_first,
        create_error=create_error,
    )


def _failed_job(jobs: Iterable[Object]) -> str:
    for job in jobs:
        if "deletionTimestamp" in job["metadata"]:
            continue
        for item in (job.get("status") or {}).get("conditions") or []:
            if item.get("type") == "Failed" and item.get("status") == "True":
                return f"{item.get('reason', '')}: {item.get('message', '')}"
    return ""


def _serving_pods(endpoint_slices: Iterable[Object]) -> Iterable[str]:
    for item in endpoint_slices:
        for endpoint in item.get("endpoints") or []:
            target = endpoint.get("targetRef") or {}
            if (endpoint.get("conditions") or {}).get("ready") and target.get("kind") == "Pod":
                yield str(target["name"])


def _pod(pod: Object) -> Pod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    container = _container(status)
    waiting = (container.get("state") or {}).get("waiting") or {}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        created=parse_time(metadata["creationTimestamp"]),
        ready=ready.get("status") == "True",
        containers_ready=conditions.get("ContainersReady", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        evicted=_evicted(status, conditions),
        unschedulable=(
            str(scheduled.get("message", "")) if scheduled.get("status") == "False" else ""
        ),
        waiting_reason=str(waiting.get("reason", "")),
        waiting_message=str(waiting.get("message", "")),
        restarts=int(container.get("restartCount", 0)),
        last_termination=_termination(container),
    )


def _container(status: Object) -> Object:
    """Return the status of our container; what others put beside it does not count."""
    found: list[Object] = status.get("containerStatuses") or []
    return next((item for item in found if item.get("name") in _OUR_CONTAINERS), {})


def _evicted(status: Object, conditions: dict[str, Object]) -> str:
    reason = str(status.get("reason", ""))
    if reason in _NODE_ENDINGS:
        return reason
    disruption = conditions.get("DisruptionTarget", {})
    return str(disruption.get("reason", "")) if disruption.get("status") == "True" else ""


def _termination(container: Object) -> Termination | None:
    """Return the latest end of a container: the current state's, else the one before."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        end = state.get("terminated")
        if end:
            return Termination(
                reason=str(end.get("reason", "")),
                exit_code=int(end.get("exitCode", 0)),
                message=str(end.get("message", "")),
            )
    return None
