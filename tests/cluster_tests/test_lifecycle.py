"""Up, down, killed, twice at once: a cluster leaves nothing and disturbs nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import lifecycle
from tests.cluster.handle import Cluster, find_cluster
from tests.cluster.paths import REPOSITORY, ClusterPaths
from tests.cluster.processes import wait_for
from tests.cluster.progress import Progress
from tests.cluster_tests.pods import create, output_of, pod, wait_for_phase
from tests.cluster_tests.residue import (
    Machine,
    assert_nothing_left,
    namespaces_alive,
    namespaces_of,
    processes_of,
)

pytestmark = pytest.mark.node

NAME = "test-lifecycle"


@pytest.fixture(autouse=True)
def no_cluster_after() -> Iterator[None]:
    yield
    lifecycle.remove(NAME)


def bring_up() -> Cluster:
    return lifecycle.up(NAME, lifecycle.Options(gpus=2), Progress(quiet=True))


def take_down() -> None:
    assert lifecycle.down(NAME, Progress(quiet=True))


def test_a_cluster_that_went_down_leaves_nothing_and_comes_up_again() -> None:
    before = Machine.now(NAME)
    for _ in range(2):
        cluster = bring_up()
        owned = namespaces_of(cluster)
        assert cluster.get("node", "node")["status"]["allocatable"]["nvidia.com/gpu"] == "2"
        assert Machine.now(NAME) == before

        take_down()

        assert_nothing_left(NAME, owned, before)
    assert not lifecycle.down(NAME, Progress(quiet=True))


def test_a_cluster_that_was_killed_ends_as_a_whole_and_is_replaced() -> None:
    before = Machine.now(NAME)
    first = bring_up()
    owned = namespaces_of(first)
    assert first.record is not None

    os.kill(first.record.pid, signal.SIGKILL)

    wait_for(lambda: not namespaces_alive(owned), what="The end of all processes", timeout=10)
    assert find_cluster(NAME) is None
    second = bring_up()
    assert second.record != first.record
    assert "Running" in second.kubectl("get", "pods", "-n", "monitoring")
    owned |= namespaces_of(second)
    take_down()
    assert_nothing_left(NAME, owned, before)


def test_a_start_that_was_killed_is_cleaned_up_by_the_next_one() -> None:
    paths = ClusterPaths(NAME)
    before = Machine.now(NAME)
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "up", "--name", NAME],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for((paths.logs / "kubelet.log").exists, what="The start of the kubelet", timeout=30)

    starter.kill()
    starter.wait()

    assert processes_of(paths.root)
    cluster = bring_up()
    owned = namespaces_of(cluster)
    take_down()
    assert_nothing_left(NAME, owned, before)


def test_two_clusters_side_by_side_do_not_disturb_each_other(
    node_cluster: Cluster, namespace: str
) -> None:
    create(node_cluster, namespace, pod("here", "serve", ":8000", port=8000))
    node_cluster.kubectl("-n", namespace, "wait", "pod/here", "--for=condition=Ready")

    other = bring_up()
    create(other, "default", pod("there", "serve", ":8000", port=8000))
    other.kubectl("wait", "pod/there", "--for=condition=Ready")
    address = other.get("pod", "there")["status"]["podIP"]
    assert output_of(other, "default", "client", "get", f"http://{address}:8000/") == "there\n"
    take_down()

    assert wait_for_phase(node_cluster, namespace, "here", "Running")
    pods = node_cluster.get("pods", "-A")["items"]
    restarts = [s["restartCount"] for p in pods for s in p["status"].get("containerStatuses", [])]
    assert set(restarts) == {0}
    own = node_cluster.get("pod", "here", "-n", namespace)["status"]["podIP"]
    said = output_of(node_cluster, namespace, "client", "get", f"http://{own}:8000/")
    assert said == "here\n"


def test_an_interrupted_start_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    before = Machine.now(NAME)
    paths = ClusterPaths(NAME)
    with (tmp_path / "said").open("w+") as said:
        starter = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster", "up", "--name", NAME],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        wait_for((paths.logs / "etcd.log").exists, what="The start of etcd", timeout=30)

        starter.send_signal(signal.SIGINT)

        assert starter.wait(timeout=90) == 130
        said.seek(0)
        assert "Interrupted" in said.read()
    assert_nothing_left(NAME, set(), before)
