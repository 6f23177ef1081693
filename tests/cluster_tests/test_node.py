"""The node is a real one: memory limits, GPUs, names, services, metrics."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tests.cluster.errors import CommandError
from tests.cluster.handle import Cluster
from tests.cluster.processes import wait_for
from tests.cluster_tests.pods import create, output_of, pod, wait_for_phase

pytestmark = pytest.mark.node


def test_a_container_over_its_memory_limit_is_killed_by_the_kernel(
    node_cluster: Cluster, namespace: str
) -> None:
    create(node_cluster, namespace, pod("glutton", "eat", "200", memory="32Mi"))

    ended = wait_for_phase(node_cluster, namespace, "glutton", "Failed", "Succeeded")

    terminated = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert terminated["reason"] == "OOMKilled"
    assert terminated["exitCode"] == 137


def test_a_container_within_its_memory_limit_is_left_alone(
    node_cluster: Cluster, namespace: str
) -> None:
    create(node_cluster, namespace, pod("moderate", "eat", "20", memory="64Mi"))

    wait_for_phase(node_cluster, namespace, "moderate", "Running")

    def eaten() -> bool:
        return "20 MiB eaten" in node_cluster.kubectl("-n", namespace, "logs", "moderate")

    wait_for(eaten, what="The meal", timeout=10)


def test_gpus_are_given_out_until_there_are_none_left(
    node_cluster: Cluster, namespace: str
) -> None:
    node = node_cluster.get("nodes")["items"][0]
    all_of_them = int(node["status"]["allocatable"]["nvidia.com/gpu"])
    create(node_cluster, namespace, pod("first", "sleep", gpus=all_of_them))
    wait_for_phase(node_cluster, namespace, "first", "Running")

    create(node_cluster, namespace, pod("second", "sleep", gpus=1))

    def refused() -> bool:
        second = node_cluster.get("pod", "second", "-n", namespace)
        words = [c.get("message", "") for c in second["status"].get("conditions", [])]
        return any("Insufficient nvidia.com/gpu" in word for word in words)

    wait_for(refused, what="The scheduler's refusal", timeout=20)
    node_cluster.kubectl("-n", namespace, "delete", "pod", "first", "--wait=false")
    wait_for_phase(node_cluster, namespace, "second", "Running")


def test_pods_find_a_service_by_name_and_reach_it(node_cluster: Cluster, namespace: str) -> None:
    labels = {"app": "server"}
    create(node_cluster, namespace, pod("server", "serve", ":8000", labels=labels, port=8000))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    create(node_cluster, namespace, service)
    node_cluster.kubectl("-n", namespace, "wait", "pod/server", "--for=condition=Ready")
    address = node_cluster.get("service", "web", "-n", namespace)["spec"]["clusterIP"]

    name = f"web.{namespace}.svc.cluster.local"
    assert output_of(node_cluster, namespace, "resolver", "resolve", name).split() == [address]

    said = output_of(node_cluster, namespace, "client", "get", "http://web/")
    assert said.strip() == "server"


def test_logs_and_exec_work_from_the_host(node_cluster: Cluster, namespace: str) -> None:
    create(node_cluster, namespace, pod("server", "serve", ":8000", port=8000))
    node_cluster.kubectl("-n", namespace, "wait", "pod/server", "--for=condition=Ready")

    said = node_cluster.kubectl(
        "-n", namespace, "exec", "server", "--", "/testpod", "get", "http://127.0.0.1:8000/metrics"
    )

    assert "testpod_up 1" in said


def test_prometheus_finds_a_labelled_pod_and_carries_its_labels(
    node_cluster: Cluster, namespace: str
) -> None:
    labels = {
        "modelrollout.dev/rollout": "images",
        "modelrollout.dev/revision": "0123456789",
        "modelrollout.dev/component": "server",
    }
    create(node_cluster, namespace, pod("model", "serve", ":9000", labels=labels, port=9000))

    found = wait_for(
        lambda: _query(node_cluster, f'testpod_up{{namespace="{namespace}"}}'),
        what="The first scrape",
        timeout=40,
        every=0.5,
    )

    series = found[0]["metric"]
    assert series["modelrollout_dev_rollout"] == "images"
    assert series["modelrollout_dev_revision"] == "0123456789"
    assert series["modelrollout_dev_component"] == "server"
    assert series["pod"] == "model"
    assert len(found) == 1


def test_nothing_leaves_the_cluster(node_cluster: Cluster, namespace: str) -> None:
    create(node_cluster, namespace, pod("escapee", "get", "http://192.0.2.1/"))

    ended = wait_for_phase(node_cluster, namespace, "escapee", "Failed", "Succeeded")

    assert ended["status"]["phase"] == "Failed"


def test_a_namespace_of_a_test_takes_only_restricted_pods(
    node_cluster: Cluster, namespace: str
) -> None:
    careless = pod("careless", "sleep")
    del careless["spec"]["securityContext"]

    with pytest.raises(CommandError, match="violates PodSecurity"):
        node_cluster.kubectl("-n", namespace, "create", "-f", "-", given=json.dumps(careless))


def _query(cluster: Cluster, query: str) -> list[dict[str, Any]]:
    url = f"{cluster.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result
