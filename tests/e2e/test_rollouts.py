"""Whole rollouts on the node: real pods, real diffusers pipelines, real Prometheus."""

from __future__ import annotations

import time

import pytest

from tests.cluster.processes import wait_for
from tests.e2e.service import (
    COST,
    ERRORS,
    PATIENT,
    SLOW_STEPS,
    SLOWER_STEPS,
    VS_STABLE,
    Service,
    candidate,
    condition,
    steady_for,
)

pytestmark = pytest.mark.node


def test_a_costly_candidate_is_rolled_back_on_cost(service: Service) -> None:
    attempt = service.next_attempt()

    service.declare(
        steps=SLOW_STEPS - 1, gates=[{**COST, "cost": {"maxPerImage": "0.004"}}, ERRORS]
    )
    record = service.until_ended(attempt)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "GateFailed")
    assert record["message"].startswith("cost:")
    gate = next(gate for gate in service.status()["gates"] if gate["name"] == "cost")
    assert gate["verdict"] == "Fail"
    assert float(gate["estimate"]) > 0.004


def test_a_candidate_slower_than_stable_is_rolled_back_by_comparison(service: Service) -> None:
    """No absolute limit is broken: only beside stable is it seen to be slow."""
    before = service.stable()
    attempt = service.next_attempt()

    service.declare(steps=SLOWER_STEPS, gates=[PATIENT, ERRORS, VS_STABLE])
    record = service.until_ended(attempt)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "GateFailed")
    assert record["message"].startswith("latency-vs-stable:")
    assert "than stable" in record["message"] or "as slow as stable" in record["message"]
    gates = {gate["name"]: gate for gate in service.status()["gates"]}
    assert gates["latency-vs-stable"]["verdict"] == "Fail"
    assert gates["latency"]["verdict"] != "Fail", "the absolute limit was kept"
    assert service.stable() == before


def test_a_kernel_kill_for_memory_takes_the_candidate_out_within_two_seconds(
    service: Service,
) -> None:
    before = service.stable()
    attempt = service.next_attempt()

    service.declare(size=2048, batch=8)
    service.until(lambda status: bool(candidate(status)), "the attempt")
    revision = service.status()["candidate"]["revision"]
    killed = wait_for(lambda: _seen_oom_killed(service, revision), what="a kill", timeout=120)
    record = service.until_ended(attempt, timeout=30)
    out = wait_for(lambda: _seen_out(service, revision), what="the candidate out", timeout=30)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "ContainerOutOfMemory")
    assert "OOMKilled" in record["message"]
    assert out - killed < 2.0, f"{out - killed:.2f} s from the pod's status to candidate out"
    assert service.stable() == before
    assert service.condition("Ready")["status"] == "True"


def _seen_oom_killed(service: Service, revision: str) -> float | None:
    for pod in service.server_pods(revision).values():
        for container in pod["status"].get("containerStatuses", []):
            for state in (container.get("state", {}), container.get("lastState", {})):
                if state.get("terminated", {}).get("reason") == "OOMKilled":
                    return time.monotonic()
    # The operator may have been quicker than this look.
    return None if service.status().get("candidate") else time.monotonic()


def _seen_out(service: Service, revision: str) -> float | None:
    pods = service.server_pods(revision).values()
    gone = all("deletionTimestamp" in pod["metadata"] for pod in pods)
    return time.monotonic() if gone else None


def test_a_missing_image_is_named_as_the_reason(service: Service) -> None:
    attempt = service.next_attempt()

    service.declare(serving={"runtime": "missing"})
    service.until(
        lambda status: condition(status, "Promoted")["reason"] == "ImagePull",
        "the reason before the decision",
    )
    record = service.until_ended(attempt)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "ImagePull")
    assert "never-built" in record["message"]


def test_a_folder_without_a_model_is_named_as_the_reason(service: Service) -> None:
    attempt = service.next_attempt()

    service.declare(model="no-such-model")
    record = service.until_ended(attempt)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "ModelInvalid")


def test_without_prometheus_nothing_is_decided_and_the_trial_resumes(service: Service) -> None:
    attempt = service.next_attempt()
    deployment = ("deployment/prometheus", "-n", "monitoring")

    service.declare(steps=5)
    service.until_measured()
    service.cluster.kubectl("scale", *deployment, "--replicas=0")
    try:
        service.until(
            lambda status: condition(status, "MetricsAvailable")["status"] == "False",
            "the outage to be seen",
        )
        frozen = service.status()["candidate"]
        assert steady_for(12, lambda: service.status().get("candidate") == frozen)
    finally:
        service.cluster.kubectl("scale", *deployment, "--replicas=1")
    record = service.until_ended(attempt)

    assert record["outcome"] == "Promoted", record
    assert any(event["note"].startswith("Prometheus answers again") for event in service.events())


def test_an_operator_that_dies_in_mid_trial_goes_on_with_the_same_attempt(
    service: Service,
) -> None:
    attempt = service.next_attempt()

    service.declare(steps=6)
    before = service.until_measured()["candidate"]
    pods = set(service.server_pods(before["revision"]))
    service.cluster.kubectl(
        *("delete", "pod", "-n", "modelrollout-system", "--grace-period=0", "--force"),
        *("-l", "app.kubernetes.io/name=modelrollout"),
    )
    record = service.until_ended(attempt)

    assert record["outcome"] == "Promoted", record
    assert record["startedTime"] == before["startedTime"]
    assert service.status()["attempts"] == attempt
    assert service.serving_pods() == pods


def test_abort_and_retry_name_the_revision_they_are_about(service: Service) -> None:
    attempt = service.next_attempt()

    service.declare(steps=7)
    service.until(lambda status: bool(candidate(status)), "the attempt")
    revision = service.status()["candidate"]["revision"]
    service.command("abort", revision)
    record = service.until_ended(attempt)
    assert record["outcome"] == "Aborted"
    wait_for(lambda: not service.commands(), what="the command to be taken away", timeout=30)
    assert service.status()["attempts"] == attempt, "what was rejected is not tried again by itself"

    service.command("retry", revision)
    service.until(lambda status: candidate(status).get("attempt") == attempt + 1, "another attempt")
    wait_for(lambda: not service.commands(), what="the commands to be taken away", timeout=30)


def test_a_rollout_at_rest_writes_nothing(service: Service) -> None:
    version = service.read()["metadata"]["resourceVersion"]
    assert steady_for(15, lambda: service.read()["metadata"]["resourceVersion"] == version)


def test_a_deleted_rollout_leaves_nothing_behind(service: Service) -> None:
    other = Service(service.cluster, service.namespace, "short-lived")
    other.declare()
    other.until(lambda status: bool(status.get("stable")), "the first revision to serve")
    other.declare(steps=5)
    other.until(lambda status: bool(candidate(status)), "the attempt")

    other.cluster.kubectl(
        *("delete", "modelrollout", other.name, "-n", other.namespace, "--timeout=30s")
    )

    def left() -> list[str]:
        found = other.cluster.get(
            "deployments,services,jobs,controllerrevisions,pods",
            *("-n", other.namespace, "-l", f"modelrollout.dev/rollout={other.name}"),
        )
        return [item["metadata"]["name"] for item in found["items"]]

    wait_for(lambda: not left(), what="everything of it to go", timeout=90)
    assert service.serving_pods(), "its neighbour serves on"
