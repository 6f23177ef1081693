"""What runs on the node for everybody: DNS, Prometheus, GPUs that are only said to be there."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from string import Template
from typing import Any

from tests.cluster import network
from tests.cluster.binaries import path_of
from tests.cluster.containerd import images, import_image, remove_images
from tests.cluster.handle import Cluster
from tests.cluster.oci import ScratchImage
from tests.cluster.paths import MANIFESTS, cache_root
from tests.cluster.processes import wait_for

GPU = "nvidia.com/gpu"
_IMAGES = "localhost/modelrollout-cluster/"


PROGRAMS = ("pause", "testpod", "coredns", "prometheus")


def image_of(program: str) -> str:
    """Return the full name of the image of one program; it changes when the program does."""
    state = path_of(program).stat()
    made = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:12]
    return f"{_IMAGES}{program}:{made}"


def import_images(cluster: Cluster) -> None:
    """Bring in the images of the add-ons, and remove those of programs that were replaced.

    Images that are there already cost nothing.
    """
    there = images(cluster)
    for program in PROGRAMS:
        name = image_of(program)
        if name not in there:
            with tempfile.TemporaryDirectory(dir=cache_root(), prefix="image-") as folder:
                ScratchImage(path_of(program)).write(Path(folder))
                import_image(cluster, Path(folder), name)
    current = {image_of(program) for program in PROGRAMS}
    remove_images(cluster, {n for n in there if n.startswith(_IMAGES) and n not in current})


def apply(cluster: Cluster) -> None:
    """Apply the manifests of DNS and Prometheus."""
    data = cluster.volumes / "prometheus"
    data.mkdir(exist_ok=True)
    data.chmod(0o777)
    values = {
        "dns_address": network.DNS_ADDRESS,
        "coredns_image": image_of("coredns"),
        "prometheus_address": network.PROMETHEUS_ADDRESS,
        "prometheus_image": image_of("prometheus"),
        "prometheus_folder": str(data),
    }
    texts = [(MANIFESTS / file).read_text() for file in ("dns.yaml", "prometheus.yaml")]
    manifest = Template("---\n".join(texts)).substitute(values)
    cluster.kubectl("apply", "--server-side", "-f", "-", given=manifest)


def advertise_gpus(cluster: Cluster, count: int) -> None:
    """Make the node say that it has GPUs: pods can ask for them, and get nothing.

    Parameters
    ----------
    cluster
        The cluster; its node is registered.
    count
        How many; 0 for none.
    """
    where = "nvidia.com~1gpu"
    # Capacity stays; allocatable is what the kubelet would make of it up to 20 s later.
    patch = [
        {"op": "add", "path": f"/status/{part}/{where}", "value": str(count)}
        for part in ("capacity", "allocatable")
    ]
    cluster.kubectl(
        *("patch", "node", network.NODE_NAME, "--subresource=status", "--type=json"),
        *("-p", json.dumps(patch)),
    )


def wait_until_registered(cluster: Cluster, timeout: float) -> None:
    """Wait until the kubelet has registered the node."""

    def registered() -> bool:
        return bool(cluster.kubectl("get", "node", network.NODE_NAME, "-o", "name"))

    wait_for(registered, what="The node's registration", timeout=timeout, every=0.2)


def wait_until_ready(cluster: Cluster, gpus: int, timeout: float) -> None:
    """Wait for the node, its GPUs, DNS and Prometheus.

    Raises
    ------
    ClusterError
        One of them is not ready in time; the message says which, and what its pods say.
    """

    def pending() -> list[str]:
        node = cluster.get("node", network.NODE_NAME)
        waiting = []
        if _condition(node, "Ready") != "True":
            waiting.append("node")
        if int(node["status"]["allocatable"].get(GPU, "0")) != gpus:
            waiting.append(GPU)
        for namespace, name in (("kube-system", "coredns"), ("monitoring", "prometheus")):
            deployment = cluster.get("deployment", name, "-n", namespace)
            if _condition(deployment, "Available") != "True":
                waiting.append(name)
        return waiting

    def ready() -> bool:
        return not pending()

    def why() -> str:
        pods = cluster.kubectl("get", "pods", "-A", "-o", "wide")
        events = cluster.kubectl("get", "events", "-A", "--field-selector=type=Warning")
        return f"Not ready: {', '.join(pending())}.\n{pods}\n{events}"

    wait_for(ready, what="The cluster's readiness", timeout=timeout, every=0.3, why=why)


def _condition(item: dict[str, Any], kind: str) -> str:
    conditions = item["status"].get("conditions", [])
    return next((str(c["status"]) for c in conditions if c["type"] == kind), "")
