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
from dataclasses import dataclass

import pytest

from tests.cluster import existing, lifecycle
from tests.cluster.handle import Cluster, Mode, find_cluster
from tests.cluster.progress import Progress

NODE_NAME = "test"
CONTROL_PLANE_NAME = "test-control-plane"


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test's own.

    Attributes
    ----------
    cluster
        Where it is.
    name
        Its name.
    """

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 120) -> str:
        """Run kubectl in the namespace, and return what it printed."""
        return self.cluster.kubectl(
            f"--namespace={self.name}", *arguments, given=given, timeout=timeout
        )


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
def control_plane_namespace(control_plane: Cluster, request: pytest.FixtureRequest) -> Namespace:
    """Give a namespace on the control plane.

    It stays until the control plane ends: deleting is the work of a controller that is not there.
    """
    return _create(control_plane, request.node.name)


@pytest.fixture
def namespace(node_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Give a namespace on the node that enforces restricted pods; it is deleted afterwards."""
    made = _create(node_cluster, request.node.name)
    yield made
    node_cluster.kubectl("delete", "namespace", made.name, "--wait=false")


def _create(cluster: Cluster, test: str) -> Namespace:
    readable = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_")).strip("-")
    name = f"{readable[:40].strip('-')}-{secrets.token_hex(3)}"
    labels = {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    return Namespace(cluster, name)
