"""Models on the claim of a namespace: made on the spot, or copied from this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.handle import Cluster
from tests.cluster.images import Images
from tests.cluster.paths import REPOSITORY
from tests.cluster.stack import MODELS_CLAIM

__all__ = ["copy_models", "make_models", "trained_models"]

Document = dict[str, Any]

_COPIER: Final = "copy-models"
_CONFINED: Final[Document] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_MOUNTS: Final[list[Document]] = [
    {"name": "models", "mountPath": "/models"},
    {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the container's own
]


def trained_models() -> dict[str, Path]:
    """Return the trained models of the examples by name."""
    found = (REPOSITORY / "examples" / "models").glob("*/model_index.json")
    return {index.parent.name: index.parent for index in sorted(found)}


def copy_models(
    cluster: Cluster, namespace: str, images: Images, folders: Mapping[str, Path]
) -> None:
    """Copy models from this machine to the claim, through a pod that mounts it.

    Parameters
    ----------
    cluster, namespace
        Where.
    images
        The inference image is what the pod runs.
    folders
        Name of each model on the claim, and its folder here.
    """
    waiter: Document = {
        "name": _COPIER,
        "image": images.inference.name,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import time; time.sleep(600)"],
        "securityContext": _CONFINED,
        "volumeMounts": _MOUNTS,
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": _COPIER, "namespace": namespace},
            "spec": {**_pod(), "containers": [waiter], "terminationGracePeriodSeconds": 0},
        }
    )
    pod = ("-n", namespace, f"pod/{_COPIER}")
    try:
        cluster.kubectl("wait", *pod, "--for=condition=Ready", "--timeout=120s", timeout=130)
        for name, folder in folders.items():
            # A model that is there in part is not there: it gets its name when it is whole.
            partial = f"/models/.{name}"
            shell = ("exec", *pod, "--", "sh", "-c")
            cluster.kubectl(*shell, f"rm -rf {partial} /models/{name}")
            cluster.kubectl("cp", "--no-preserve", str(folder), f"{namespace}/{_COPIER}:{partial}")
            cluster.kubectl(*shell, f"mv {partial} /models/{name}")
    finally:
        cluster.kubectl("delete", *pod, "--ignore-not-found", "--wait=false")


def make_models(
    cluster: Cluster, namespace: str, images: Images, models: Mapping[str, int]
) -> None:
    """Make tiny diffusion models with random weights on the claim, by a Job in the cluster.

    Parameters
    ----------
    cluster, namespace
        Where.
    images
        The inference image makes the models.
    models
        Folder of each model and the seed of its weights.
    """
    makers = [_maker(images.inference.name, name, seed) for name, seed in models.items()]
    # One after the other: each needs a core and the memory of torch.
    pod = {**_pod(), "initContainers": makers[:-1], "containers": makers[-1:]}
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "make-models", "namespace": namespace},
            "spec": {"backoffLimit": 1, "template": {"spec": pod}},
        }
    )
    cluster.kubectl(
        *("wait", "-n", namespace, "--for=condition=Complete", "job/make-models"),
        "--timeout=180s",
        timeout=190,
    )


def _maker(image: str, name: str, seed: int) -> Document:
    return {
        "name": f"make-{name}",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            *("make-tiny", "--architecture=sd", "--scale=small"),
            *(f"--seed={seed}", f"--out=/models/{name}"),
        ],
        "securityContext": _CONFINED,
        "volumeMounts": _MOUNTS,
    }


def _pod() -> Document:
    """Return what all pods have that write on the claim."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": MODELS_CLAIM}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
