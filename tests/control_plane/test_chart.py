"""The chart by Helm and a real API server: what it renders, and what the operator may then do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrollout.settings import load_settings
from tests.cluster import binaries
from tests.cluster.errors import CommandError
from tests.cluster.handle import Cluster
from tests.cluster.processes import run
from tests.cluster.progress import Progress
from tests.cluster.upstreams import HELM

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "helm/modelrollout"
DEFAULTS = CHART / "values.yaml"
NAMESPACED = CHART / "ci/namespaced-values.yaml"
PRODUCTION = CHART / "ci/production-values.yaml"
ALL_VALUES = [DEFAULTS, NAMESPACED, PRODUCTION]

Document = dict[str, Any]


@pytest.fixture(scope="session")
def helm() -> Path:
    binaries.ensure((HELM,), Progress(quiet=True))
    return binaries.path_of("helm")


def render(helm: Path, *options: str | Path) -> list[Document]:
    text = run([helm, "template", "mro", CHART, "--namespace=system", "--kube-version=1.36.0",
                *options])  # fmt: skip
    return [document for document in yaml.safe_load_all(text) if document]


def only(documents: list[Document], kind: str, name: str = "mro-modelrollout") -> Document:
    (found,) = (d for d in documents if d["kind"] == kind and name in {d["metadata"]["name"], ""})
    return found


def container(documents: list[Document]) -> Document:
    (found,) = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("values", ALL_VALUES, ids=lambda path: path.stem)
def test_helm_finds_no_fault(helm: Path, values: Path) -> None:
    assert "0 chart(s) failed" in run([helm, "lint", "--strict", CHART, "--values", values])


@pytest.mark.parametrize("values", ALL_VALUES, ids=lambda path: path.stem)
def test_the_operator_understands_its_configuration(
    helm: Path, values: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"

    file.write_text(only(render(helm, "--values", values), "ConfigMap")["data"]["config.yaml"])

    given = yaml.safe_load(values.read_text())["config"]
    assert load_settings(file).prometheus.url == given["prometheus"]["url"]


def test_a_changed_configuration_restarts_the_operator(helm: Path) -> None:
    def stamp(*options: str) -> str:
        pod = only(render(helm, *options), "Deployment")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/config"])

    assert stamp("--set=config.resyncSeconds=31") != stamp()
    assert stamp("--set=commonLabels.a=b") == stamp()


def test_the_crd_stays_when_the_release_goes(helm: Path) -> None:
    generated = yaml.safe_load(
        (CHART / "files/crds/modelrollouts.modelrollout.dev.yaml").read_text()
    )

    crd = only(render(helm), "CustomResourceDefinition", generated["metadata"]["name"])
    fickle = only(
        render(helm, "--set=crds.keep=false"),
        "CustomResourceDefinition",
        generated["metadata"]["name"],
    )

    assert crd["spec"] == generated["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in fickle["metadata"]


def test_a_digest_decides_on_the_image(helm: Path) -> None:
    assert container(render(helm))["image"] == "modelrollout/operator:0.1.0"
    assert container(render(helm, "--values", PRODUCTION))["image"].endswith(
        "@sha256:" + "0123456789abcdef" * 4
    )


def test_a_namespaced_release_has_nothing_cluster_wide(helm: Path) -> None:
    documents = render(helm, "--values", NAMESPACED)

    kinds = {document["kind"] for document in documents}
    assert kinds == {"ServiceAccount", "ConfigMap", "Role", "RoleBinding", "Deployment"}
    assert container(documents)["args"][-4:] == ["--namespace", "studio", "--namespace", "exports"]


@pytest.fixture
def release(helm: Path, control_plane: Cluster, namespace: str) -> Iterator[str]:
    """Give the namespace of an operator that works in that namespace only."""
    target: list[str | Path] = ["--kubeconfig", control_plane.kubeconfig, "--namespace", namespace]
    run(
        [helm, "install", namespace, CHART, *target, "--set=crds.enabled=false",
         f"--set=scope.namespaces={{{namespace}}}", "--set=fullnameOverride=operator"],
    )  # fmt: skip
    yield namespace
    run([helm, "uninstall", namespace, *target])


def may(cluster: Cluster, namespace: str, verb: str, resource: str, where: str) -> bool:
    try:
        answer = cluster.kubectl(
            "auth", "can-i", verb, resource, f"--namespace={where}",
            f"--as=system:serviceaccount:{namespace}:operator",
        )  # fmt: skip
    except CommandError as refused:  # kubectl says no by its exit status
        answer = refused.output
    return answer.strip() == "yes"


def test_the_operator_may_do_its_work_and_no_more(control_plane: Cluster, release: str) -> None:
    allowed = {
        "modelrollouts.modelrollout.dev": "get list watch patch",
        "modelrollouts.modelrollout.dev/status": "patch update",
        "modelrollouts.modelrollout.dev/finalizers": "update",
        "deployments.apps": "get list watch create patch delete",
        "controllerrevisions.apps": "get list watch create patch delete",
        "jobs.batch": "get list watch create patch delete",
        "services": "get list watch create patch delete",
        "pods": "get list watch",
        "endpointslices.discovery.k8s.io": "get list watch",
        "events.events.k8s.io": "create",
    }
    rules = _rules(control_plane, release)
    assert rules == {
        (verb, resource) for resource, verbs in allowed.items() for verb in verbs.split()
    }
    for verb, resource in (("patch", "jobs.batch"), ("create", "jobs.batch"), ("list", "pods")):
        assert may(control_plane, release, verb, resource, release)
        assert not may(control_plane, release, verb, resource, "default")
    for verb, resource in itertools.product(("get", "list"), ("secrets", "configmaps", "nodes")):
        assert not may(control_plane, release, verb, resource, release)
    assert not may(control_plane, release, "create", "pods/exec", release)


def _rules(cluster: Cluster, namespace: str) -> set[tuple[str, str]]:
    role = cluster.get("role", "operator", f"--namespace={namespace}")
    return {
        (verb, _with_group(resource, group))
        for rule in role["rules"]
        for verb, resource, group in itertools.product(
            rule["verbs"], rule["resources"], rule["apiGroups"]
        )
    }


def _with_group(resource: str, group: str) -> str:
    kind, slash, part = resource.partition("/")
    return f"{kind}.{group}{slash}{part}" if group else resource


def test_the_api_server_takes_the_operators_pod_as_restricted(
    control_plane: Cluster, release: str
) -> None:
    deployment = control_plane.get("deployment", "operator", f"--namespace={release}")
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": release},
        "spec": {**template["spec"]},
    }

    text = control_plane.kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump(pod))

    assert "created (server dry run)" in text
    (only_container,) = template["spec"]["containers"]
    assert only_container["securityContext"]["readOnlyRootFilesystem"]
