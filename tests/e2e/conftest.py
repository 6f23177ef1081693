"""The product on the node: images built and imported, the operator installed by its chart."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.cluster import models, stack
from tests.cluster.handle import Cluster
from tests.cluster.images import Images, build_images, import_images
from tests.cluster.progress import Progress
from tests.e2e.service import Service

# A pod may use all of its 60 s of grace, most of it to finish what it has accepted.
GONE_SECONDS = 120
MISSING_IMAGE = "modelrollout.local/inference:never-built"


@pytest.fixture(scope="session")
def images(node_cluster: Cluster, request: pytest.FixtureRequest) -> Images:
    """Build the project's images from its Dockerfiles and bring them into the cluster."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), Progress() as progress:
        built = build_images(progress)
        import_images(node_cluster, built, progress)
    return built


@pytest.fixture(scope="session")
def operator(node_cluster: Cluster, images: Images) -> Cluster:
    """Install the operator by its chart; return the cluster that it works on."""
    stack.install_operator(node_cluster, images, runtimes={"missing": MISSING_IMAGE})
    return node_cluster


@pytest.fixture(scope="session")
def studio(operator: Cluster, images: Images) -> Iterator[str]:
    """Give a namespace with a tiny model of random weights, and the trained ones."""
    name = f"studio-{secrets.token_hex(3)}"
    stack.prepare_namespace(operator, name)
    models.make_models(operator, name, images, {"first": 1})
    models.copy_models(operator, name, images, models.trained_models())
    yield name
    everything = ("modelrollouts", "--all", "-n", name)
    wait = f"--timeout={GONE_SECONDS}s"
    operator.kubectl("delete", *everything, wait, timeout=GONE_SECONDS + 30)
    operator.kubectl("delete", "namespace", name, "--wait=false")
    operator.kubectl("delete", "persistentvolume", f"{name}-models", "--wait=false")


@pytest.fixture(scope="session")
def _service(operator: Cluster, studio: str) -> Service:
    service = Service(operator, studio, "images")
    service.declare()
    service.until(lambda status: bool(status.get("stable")), "the first revision to serve")
    return service


@pytest.fixture
def service(_service: Service) -> Iterator[Service]:
    """Give a service with a stable revision and no attempt in progress."""
    yield _service
    _service.settle()
