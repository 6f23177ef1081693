"""The product on a cluster: the operator by its chart, and a namespace for models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.binaries import find
from tests.cluster.errors import ClusterError
from tests.cluster.handle import Cluster, Mode
from tests.cluster.images import Images
from tests.cluster.processes import run

__all__ = [
    "MODELS_CLAIM",
    "OPERATOR_NAMESPACE",
    "install_operator",
    "prepare_namespace",
]

REPOSITORY: Final = Path(__file__).parents[2]
CHART: Final = REPOSITORY / "helm" / "modelrollout"
OPERATOR_NAMESPACE: Final = "modelrollout-system"
MODELS_CLAIM: Final = "models"
PROMETHEUS_URL: Final = "http://prometheus.monitoring:9090"
SCRAPE_SECONDS: Final = 2

Document = dict[str, Any]


def install_operator(
    cluster: Cluster,
    images: Images,
    *,
    runtimes: Mapping[str, str] | None = None,
    prometheus_url: str = PROMETHEUS_URL,
    scrape_seconds: int = SCRAPE_SECONDS,
) -> None:
    """Install or upgrade the operator by its chart, and wait until it runs.

    Parameters
    ----------
    cluster
        Where.
    images
        The operator's image, and the server's as the runtime ``default``.
    runtimes
        Further server images by the name that ``spec.serving.runtime`` says.
    prometheus_url
        Prometheus as pods reach it.
    scrape_seconds
        How often it scrapes.

    Raises
    ------
    ClusterError
        Helm is missing, or the operator does not come up.
    """
    helm = find("helm") or shutil.which("helm")
    if helm is None:
        raise ClusterError("helm is missing: `python -m tests.cluster prepare` gets it.")
    values = _values(images, runtimes or {}, prometheus_url, scrape_seconds)
    run(
        [
            *(
                helm,
                "upgrade",
                "--install",
                "modelrollout",
                CHART,
                "--kubeconfig",
                cluster.kubeconfig,
            ),
            *("--namespace", OPERATOR_NAMESPACE, "--create-namespace"),
            *("--values", "-", "--wait", "--timeout", "3m"),
        ],
        given=json.dumps(values),
        timeout=240,
    )


def _values(
    images: Images, runtimes: Mapping[str, str], prometheus_url: str, scrape_seconds: int
) -> Document:
    values = images.helm_values()
    values["config"] = {
        "prometheus": {
            "url": prometheus_url,
            "scrapeIntervalSeconds": scrape_seconds,
            "timeoutSeconds": 5,
        },
        # One cent per GPU second, so that costs can be checked in one's head.
        "pools": {"preview": {"gpuHourPrice": "36.00"}},
        "runtimes": {
            "default": {"image": images.inference.name},
            **{name: {"image": image} for name, image in runtimes.items()},
        },
        "resyncSeconds": 10,
    }
    return values


def prepare_namespace(cluster: Cluster, namespace: str) -> None:
    """Create a namespace that enforces the restricted pod security, with a claim for models."""
    labels = {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": labels},
        },
        *_volume(cluster, namespace),
    )


def _volume(cluster: Cluster, namespace: str) -> list[Document]:
    claim: Document = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": MODELS_CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    if cluster.mode is not Mode.NODE:
        return [claim]
    folder = cluster.volumes / f"{namespace}-{MODELS_CLAIM}"
    folder.mkdir(parents=True, exist_ok=True)
    # Pods write as a user of their own, and a hostPath takes no fsGroup.
    folder.chmod(0o777)
    name = f"{namespace}-{MODELS_CLAIM}"
    claim["spec"] |= {"storageClassName": "", "volumeName": name}
    volume: Document = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": MODELS_CLAIM},
        },
    }
    return [volume, claim]
