"""Pods for the tests of the cluster, restricted as its namespaces want them."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.addons import image_of
from tests.cluster.handle import Cluster
from tests.cluster.processes import wait_for

Document = dict[str, Any]


def pod(
    name: str,
    *arguments: str,
    memory: str = "64Mi",
    gpus: int = 0,
    labels: dict[str, str] | None = None,
    port: int = 0,
) -> Document:
    """Return a pod that runs the test program with these arguments."""
    limits: dict[str, str] = {"memory": memory}
    if gpus:
        limits["nvidia.com/gpu"] = str(gpus)
    container: Document = {
        "name": "testpod",
        "image": image_of("testpod"),
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "resources": {"limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if port:
        container["ports"] = [{"name": "metrics", "containerPort": port}]
        container["readinessProbe"] = {
            "httpGet": {"path": "/", "port": port},
            "periodSeconds": 1,
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def create(cluster: Cluster, namespace: str, document: Document) -> None:
    """Create an object, once the namespace's service account is there."""

    def created() -> bool:
        cluster.kubectl("-n", namespace, "create", "-f", "-", given=json.dumps(document))
        return True

    wait_for(created, what=f"The creation of {document['metadata']['name']}", timeout=15)


def wait_for_phase(cluster: Cluster, namespace: str, name: str, *phases: str) -> Document:
    """Wait until a pod is in one of the phases, and return it."""
    found: list[Document] = []

    def reached() -> bool:
        found[:] = [cluster.get("pod", name, "-n", namespace)]
        return found[0]["status"]["phase"] in phases

    wait_for(
        reached,
        what=f"Phase {' or '.join(phases)} of pod {name}",
        timeout=60,
        every=0.3,
        why=lambda: json.dumps(found[0]["status"]) if found else "",
    )
    return found[0]


def output_of(cluster: Cluster, namespace: str, name: str, *arguments: str) -> str:
    """Run the test program in a pod to its end, and return what it said."""
    create(cluster, namespace, pod(name, *arguments))
    ended = wait_for_phase(cluster, namespace, name, "Succeeded", "Failed")
    said = cluster.kubectl("-n", namespace, "logs", name)
    assert ended["status"]["phase"] == "Succeeded", said
    return said
