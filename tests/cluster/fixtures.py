"""pytest fixtures: a control plane, a cluster with a node, a namespace per test.

Both clusters are brought up once per test run, when the first test asks for them, and taken down
after the last. One that is up under the name below already is used as it is and left up: bring it
up with ``python -m tests.cluster up --name test`` to spare every run the wait.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import existing, lifecycle
from tests.cluster.handle import Cluster, Mode, find_cluster
from tests.cluster.progress import Progress

NODE_NAME = "test"
CONTROL_PLANE_NAME = "test-control-plane"


@contextmanager
def _session(
    request: pytest.FixtureRequest, name: str, options: lifecycle.Options
) -> Iterator[Cluster]:
    if existing.wanted():
        yield existing.existing_cluster()
        return
    running = find_cluster(name)
    if running is not None:
        yield running
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    # The wait is shown: a first run builds for minutes.
    with capture.global_and_fixture_disabled(), Progress() as progress:
        cluster = lifecycle.up(name, options, progress)
    try:
        yield cluster
    finally:
        lifecycle.down(name, Progress(quiet=True))


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give etcd and kube-apiserver on loopback: real objects and schemas, no pods; no root."""
    options = lifecycle.Options(mode=Mode.CONTROL_PLANE)
    with _session(request, CONTROL_PLANE_NAME, options) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def node_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give a cluster with a node, DNS and Prometheus: real pods."""
    with _session(request, NODE_NAME, lifecycle.Options(mode=Mode.NODE)) as cluster:
        yield cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a namespace of the test's own that enforces restricted pods, and delete it afterwards.

    It is on the cluster whose fixture the test asks for, the one with a node if for neither. On the
    control plane alone nobody finishes its deletion; it ends with the control plane.
    """
    kind = "control_plane" if "control_plane" in request.fixturenames else "node_cluster"
    cluster: Cluster = request.getfixturevalue(kind)
    name = _name(request.node.name)
    labels = {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _name(test: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_")).strip("-")
    return f"{readable[:40].strip('-')}-{secrets.token_hex(3)}"
