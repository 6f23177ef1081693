"""etcd and kube-apiserver alone: real objects, no root, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.existing import existing_cluster
from tests.cluster.handle import Cluster
from tests.cluster_tests.residue import processes_of
from tests.cluster_tests.unprivileged import run_as_nobody

pytestmark = pytest.mark.cluster


def test_objects_are_stored_and_found(control_plane: Cluster, namespace: str) -> None:
    control_plane.kubectl("-n", namespace, "create", "configmap", "note", "--from-literal=a=b")

    assert control_plane.get("configmap", "note", "-n", namespace)["data"] == {"a": "b"}


def test_it_comes_up_and_goes_down_without_root(control_plane: Cluster, tmp_path: Path) -> None:
    up = run_as_nobody(tmp_path, "up", "--control-plane-only", "--name", "rootless")
    assert up.returncode == 0, up.stderr
    assert len(processes_of(tmp_path)) == 3  # supervisor, etcd, kube-apiserver

    asked = run_as_nobody(tmp_path, "kubectl", "--name", "rootless", "--", "get", "namespaces")
    assert "kube-system" in asked.stdout, asked.stderr

    down = run_as_nobody(tmp_path, "down", "--name", "rootless")
    assert down.returncode == 0, down.stderr
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "modelrollout" / "clusters" / "rootless").exists()


def test_an_existing_cluster_must_be_named_on_purpose(control_plane: Cluster) -> None:
    environment = {"KUBECONFIG": str(control_plane.kubeconfig), "USE_EXISTING_CLUSTER": "1"}
    context = f"modelrollout-{control_plane.name}"

    with pytest.raises(ClusterError, match=r"MODELROLLOUT_TEST_CONTEXT must be .* it is not set"):
        existing_cluster(environment)
    with pytest.raises(ClusterError, match="it is 'production'"):
        existing_cluster({**environment, "MODELROLLOUT_TEST_CONTEXT": "production"})

    taken = existing_cluster({**environment, "MODELROLLOUT_TEST_CONTEXT": context})
    assert taken.kubectl("get", "namespace", "default", "-o", "name").strip() == "namespace/default"
