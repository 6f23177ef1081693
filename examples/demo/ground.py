"""What the demo stands on: a cluster, the images, the operator, trained models on a volume."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from imagegen.engines.digest import folder_digest
from imagegen.engines.folder import list_files
from tests.cluster import debian, existing, lifecycle, models, preflight, stack
from tests.cluster.binaries import find
from tests.cluster.errors import ClusterError, PreflightError
from tests.cluster.handle import Cluster, Mode
from tests.cluster.images import Image, Images, build_images, import_images
from tests.cluster.progress import Progress
from tests.cluster.upstreams import EVERYTHING

__all__ = ["CLUSTER", "NAMESPACE", "Ground", "bring_up", "setting"]

CLUSTER: Final = "demo"
NAMESPACE: Final = "modelrollout-demo"
INFERENCE_IMAGE: Final = "MODELROLLOUT_INFERENCE_IMAGE"
OPERATOR_IMAGE: Final = "MODELROLLOUT_OPERATOR_IMAGE"
PROMETHEUS_URL: Final = "MODELROLLOUT_PROMETHEUS_URL"
SCRAPE_SECONDS: Final = "MODELROLLOUT_SCRAPE_SECONDS"

_DIGESTS: Final = "digests"
"""Annotation of the claim: which models were copied to it, when all of them are there."""

_NEEDED: Final = f"""\
On a cluster of your own the demo needs
  - {INFERENCE_IMAGE} and {OPERATOR_IMAGE}: the project's images,
    with a tag, in a registry that the cluster pulls from (build them with
    `buildah bud -f inference_image/Dockerfile .` and `-f operator/Dockerfile`)
  - {PROMETHEUS_URL}: Prometheus as pods of the cluster reach it; it scrapes the pods
    of ModelRollouts (see README.md) every {SCRAPE_SECONDS} seconds (15 when not set)
  - a default StorageClass, and a node with two free GPUs under the name nvidia.com/gpu
  - kubectl and helm on PATH, and the right to install a CRD and cluster roles
"""


@dataclass(frozen=True)
class Ground:
    """A cluster on which the story can be told.

    Attributes
    ----------
    cluster
        Where.
    namespace
        The namespace with the models.
    """

    cluster: Cluster
    namespace: str = NAMESPACE


def setting(environment: Mapping[str, str] = os.environ) -> str:
    """Say in a few words where the demo takes place."""
    if existing.wanted(environment):
        return "on the cluster of your current kubectl context"
    return "on a Kubernetes of its own on this machine, with real pods and real pictures"


def bring_up(environment: Mapping[str, str] = os.environ) -> Ground:
    """Bring up what is not up yet, and clear away what an earlier run left.

    Raises
    ------
    ClusterError
        Something is missing or does not come up; the message says what, and how to mend it.
    """
    if existing.wanted(environment):
        cluster = existing.existing_cluster(environment)
        images, prometheus = _given(environment), _prometheus(environment)
        _refuse_to_replace_an_operator(cluster)
        with Progress() as progress:
            return _furnish(cluster, images, progress, prometheus)
    with Progress() as progress:
        cluster, images = _cluster_and_images(progress)
        import_images(cluster, images, progress)
        return _furnish(cluster, images, progress, {})


def _cluster_and_images(progress: Progress) -> tuple[Cluster, Images]:
    """Bring up the cluster and build the images, side by side."""
    problems = preflight.check(Mode.NODE, EVERYTHING, port=0)
    if problems:
        raise PreflightError(problems)
    # Both need packages, and apt-get runs once at a time.
    debian.ensure(debian.NODE + debian.IMAGES, progress)
    return _side_by_side(
        lambda: lifecycle.up(CLUSTER, lifecycle.Options(), progress),
        lambda: build_images(progress),
        progress,
    )


def _side_by_side(
    bring: Callable[[], Cluster], build: Callable[[], Images], progress: Progress
) -> tuple[Cluster, Images]:
    pool = ThreadPoolExecutor(2)
    try:
        cluster: Future[Cluster] = pool.submit(bring)
        images: Future[Images] = pool.submit(build)
        return cluster.result(), images.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        progress.say("Stopped; what is under way is being ended.")
        raise


def _furnish(
    cluster: Cluster, images: Images, progress: Progress, prometheus: dict[str, Any]
) -> Ground:
    """Install the operator, and bring the models to the volume."""
    with progress.step("operator, by its Helm chart", key="demo-operator", estimate=8):
        stack.install_operator(cluster, images, **prometheus)
    with progress.step("what an earlier run left", key="demo-reset", estimate=1) as step:
        step.conclude("none" if not _clear(cluster) else "removed")
    with progress.step("trained models onto a volume", key="copy-models", estimate=8) as step:
        step.conclude(_bring_models(cluster, images))
    return Ground(cluster)


def _clear(cluster: Cluster) -> bool:
    """Remove the rollouts and events of an earlier run."""
    if not _exists(cluster, "namespace", NAMESPACE):
        return False
    everything = ("delete", "modelrollouts", "--all", "-n", NAMESPACE)
    there = cluster.kubectl(*everything, "--timeout=90s", timeout=100)
    cluster.kubectl("delete", "events", "--all", "-n", NAMESPACE)
    return bool(there.strip()) and not there.startswith("No resources")


def _bring_models(cluster: Cluster, images: Images) -> str:
    """Copy the models to the claim, unless these very models are there; say what was done."""
    folders = models.trained_models()
    digests = " ".join(folder_digest(path, list_files(path)) for path in folders.values())
    claim = ("pvc", stack.MODELS_CLAIM, "-n", NAMESPACE)
    if _exists(cluster, *claim):
        there = cluster.get(*claim)["metadata"].get("annotations", {})
        if there.get(_DIGESTS) == digests:
            return "there"
    stack.prepare_namespace(cluster, NAMESPACE)
    models.copy_models(cluster, NAMESPACE, images, folders)
    cluster.kubectl("annotate", *claim, "--overwrite", f"{_DIGESTS}={digests}")
    return f"{len(folders)}"


def _exists(cluster: Cluster, kind: str, name: str, *options: str) -> bool:
    return bool(cluster.kubectl("get", kind, name, "--ignore-not-found", "-o", "name", *options))


def _given(environment: Mapping[str, str]) -> Images:
    named = {name: environment.get(name, "") for name in (INFERENCE_IMAGE, OPERATOR_IMAGE)}
    for name, image in named.items():
        if ":" not in image.rpartition("/")[2] or "@" in image:
            said = f"is {image!r}" if image else "is not set"
            raise ClusterError(f"{name} {said}; it must name an image with a tag.\n{_NEEDED}")
    layout = Path()  # nothing is imported: the cluster pulls
    return Images(Image(named[INFERENCE_IMAGE], layout), Image(named[OPERATOR_IMAGE], layout))


def _prometheus(environment: Mapping[str, str]) -> dict[str, Any]:
    url = environment.get(PROMETHEUS_URL, "")
    seconds = environment.get(SCRAPE_SECONDS, "15")
    if not url.startswith(("http://", "https://")):
        said = f"is {url!r}" if url else "is not set"
        raise ClusterError(f"{PROMETHEUS_URL} {said}; it must be an address.\n{_NEEDED}")
    if not seconds.isdigit() or int(seconds) == 0:
        raise ClusterError(f"{SCRAPE_SECONDS} is {seconds!r}; it must be a number of seconds.")
    return {"prometheus_url": url, "scrape_seconds": int(seconds)}


def _refuse_to_replace_an_operator(cluster: Cluster) -> None:
    """Make sure that an operator which serves somebody keeps its configuration."""
    there = _exists(cluster, "deployment", "modelrollout", "-n", stack.OPERATOR_NAMESPACE)
    if there and not _exists(cluster, "namespace", NAMESPACE):
        raise ClusterError(
            f"The namespace {stack.OPERATOR_NAMESPACE} of {cluster.name} has an operator that the "
            "demo did not install, and the demo would change its configuration. Apply the files "
            "of examples/demo by hand, or choose another cluster."
        )
    if (find("helm") or shutil.which("helm")) is None:
        raise ClusterError(f"helm is not on PATH.\n{_NEEDED}")
