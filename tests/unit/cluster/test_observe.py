"""From the API server's objects to facts."""

from __future__ import annotations

from typing import Any

from modelrollout.cluster.observe import world_of
from modelrollout.rollout.world import Termination, World

Object = dict[str, Any]

SIDECAR = {"name": "proxy", "restartCount": 7}


def pod(name: str = "p", *, component: str = "server", **status: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {
                "modelrollout.dev/revision": "aaaaaaaaaa",
                "modelrollout.dev/component": component,
            },
        },
        "status": status,
    }


def deployment(**status: Any) -> Object:
    return {
        "metadata": {
            "name": "d",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {"modelrollout.dev/revision": "aaaaaaaaaa"},
        },
        "spec": {"replicas": 2},
        "status": status,
    }


def observe(
    *pods: Object, deployments: tuple[Object, ...] = (), jobs: tuple[Object, ...] = ()
) -> World:
    return world_of(deployments=deployments, pods=pods, jobs=jobs, service=None, endpoint_slices=[])


def test_a_kill_for_memory_is_read_from_the_running_and_from_the_waiting_container() -> None:
    end = {"reason": "OOMKilled", "exitCode": 137}
    for states in ({"state": {"terminated": end}}, {"lastState": {"terminated": end}}):
        world = observe(
            pod(containerStatuses=[SIDECAR, {"name": "server", "restartCount": 1, **states}])
        )
        found = world.revision("aaaaaaaaaa").pods[0]
        assert found.restarts == 1
        assert isinstance(found.last_termination, Termination)
        assert found.last_termination.reason == "OOMKilled"


def test_a_pod_of_which_nothing_is_reported_yet_is_not_ready() -> None:
    found = observe(pod()).revision("aaaaaaaaaa").pods[0]
    assert not found.ready
    assert found.last_termination is None


def test_the_words_of_scheduler_and_kubelet_are_kept() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    waiting = {
        "name": "server",
        "state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}},
    }
    first, second = (
        observe(pod("a", conditions=[unscheduled]), pod("b", containerStatuses=[waiting]))
        .revision("aaaaaaaaaa")
        .pods
    )
    words = {first.unschedulable or second.unschedulable, first.waiting_message}
    assert "0/1 nodes" in words
    assert "no such host" in {first.waiting_message, second.waiting_message}


def test_a_disrupted_pod_was_ended_by_its_node() -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    assert observe(pod(conditions=[target])).revision("aaaaaaaaaa").pods[0].evicted


def test_pods_of_the_probe_are_not_pods_of_the_candidate() -> None:
    world = observe(pod("probe", component="probe"), deployments=(deployment(),))
    assert world.revision("aaaaaaaaaa").pods == ()
    assert [item.name for item in world.probe.pods] == ["probe"]


def test_a_job_that_gave_up_says_why() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}
    world = observe(jobs=({"metadata": {"name": "j"}, "status": {"conditions": [failed]}},))
    assert world.probe.failed == "BackoffLimitExceeded: m"


def test_a_deployment_that_is_being_deleted_is_gone() -> None:
    ending = deployment()
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert observe(deployments=(ending,)).revision("aaaaaaaaaa").replicas is None


def test_a_quota_that_stops_the_pods_is_told() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    state = observe(deployments=(deployment(conditions=[refused]),)).revision("aaaaaaaaaa")
    assert "exceeded quota: gpus" in state.create_error


def test_pods_older_than_their_deployment_belong_to_an_earlier_one() -> None:
    again = deployment()
    again["metadata"]["creationTimestamp"] = "2026-01-01T12:00:01Z"
    assert observe(pod(), deployments=(again,)).revision("aaaaaaaaaa").pods == ()
