"""containerd: its configuration, its image store, and bringing images into it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import oci
from tests.cluster.binaries import path_of
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.handle import Cluster
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Program

# Its usual place, in the cluster's own /run: the cache's path may be too long for a socket.
SOCKET = "/run/containerd/containerd.sock"
NAMESPACE = "k8s.io"


def program(paths: ClusterPaths, root: Path, cni_config: Path, pause: str) -> Program:
    """Return containerd, after writing its configuration.

    Parameters
    ----------
    paths
        Files of the cluster.
    root
        The image store; no other containerd may be using it.
    cni_config
        Folder with the pods' network.
    pause
        Full name of the image that holds a pod's namespaces.
    """
    binary = path_of("containerd")
    file = paths.config / "containerd.toml"
    file.write_text(f"""version = 3
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[plugins.'io.containerd.internal.v1.opt']
  path = "/run/containerd-opt"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"

[plugins.'io.containerd.cri.v1.runtime']
  # Lowering oom_score_adj needs CAP_SYS_RESOURCE, which not every root has; without this such a
  # one starts no pod at all.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = "{cni_config}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
""")
    return Program(
        "containerd",
        [str(binary), f"--config={file}"],
        # It finds its shim and runc by PATH.
        env={"PATH": f"{binary.parent}:/usr/local/sbin:/usr/sbin:/sbin:{os.environ['PATH']}"},
        ready_path=SOCKET,
    )


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    name
        The image's full name.
    digest
        Of its manifest.
    sent_blobs, sent_bytes
        What containerd did not have.
    seconds
        How long it took.
    unchanged
        containerd had this very image under this name.
    """

    name: str
    digest: str
    sent_blobs: int
    sent_bytes: int
    seconds: float
    unchanged: bool


def import_image(cluster: Cluster, layout: Path, name: str) -> ImportReport:
    """Bring an image into a running cluster; only what containerd lacks is read.

    Parameters
    ----------
    cluster
        The cluster; one of ours with a node.
    layout
        Folder of an OCI image layout. Layers that buildah did not compress
        (``--disable-compression``) are quickest.
    name
        Full reference that pods use, with a registry: ``localhost/modelrollout/inference:dev``.

    Raises
    ------
    ClusterError
        The layout is none, or containerd refuses it.
    """
    began = time.monotonic()
    image = oci.read_layout(layout)
    if images(cluster).get(name) == image.digest:
        return ImportReport(name, image.digest, 0, 0, time.monotonic() - began, unchanged=True)
    held = set(_ctr(cluster, "content", "ls", "-q").split())
    # Without the index nothing refers to the others; manifest and configuration are small.
    first, config, *layers = image.blobs
    wanted = (first, config, *dict.fromkeys(b for b in layers if b.digest not in held))
    gone = [str(blob.path) for blob in wanted if not blob.path.exists()]
    if gone:
        raise ClusterError(f"{layout} lacks {gone[0]}, and containerd does not have it either.")
    _send(cluster, image, name, wanted)
    return ImportReport(
        name,
        image.digest,
        len(wanted),
        sum(blob.size for blob in wanted),
        time.monotonic() - began,
        unchanged=False,
    )


def images(cluster: Cluster) -> dict[str, str]:
    """Return name and manifest digest of the images that a cluster's containerd has."""
    lines = _ctr(cluster, "images", "ls").splitlines()[1:]
    return {words[0]: words[2] for words in (line.split() for line in lines) if len(words) > 2}


def remove_images(cluster: Cluster, names: Iterable[str]) -> None:
    """Remove images from a cluster; layers that no other image has go with them.

    Parameters
    ----------
    cluster
        The cluster; one of ours with a node.
    names
        Full names; one that is not there is no error.
    """
    there = images(cluster)
    going = set(names) & set(there)
    kept = {digest for name, digest in there.items() if _is_name(name) and name not in going}
    # The CRI plug-in gives every image a second name by its configuration.
    also = {n for n, digest in there.items() if not _is_name(n) and digest not in kept}
    if going:
        _ctr(cluster, "images", "rm", *sorted(going | also))


def _is_name(name: str) -> bool:
    return not name.startswith("sha256:")


def _send(cluster: Cluster, image: oci.Layout, name: str, blobs: tuple[oci.Blob, ...]) -> None:
    argv = cluster.inside(_ctr_argv("images", "import", "--local", "-"))
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said, stderr=said) as process,
    ):
        if process.stdin is None:
            raise ClusterError("ctr was started without its input.")
        # When it ends early, its own words say more than our broken pipe.
        with contextlib.suppress(BrokenPipeError):
            oci.write_archive(image, name, blobs, process.stdin)
            process.stdin.close()
        if process.wait() != 0:
            said.seek(0)
            raise CommandError(["ctr", "images", "import", name], process.returncode, said.read())


def _ctr_argv(*arguments: str) -> list[str]:
    return [str(path_of("ctr")), f"--address={SOCKET}", f"--namespace={NAMESPACE}", *arguments]


def _ctr(cluster: Cluster, *arguments: str) -> str:
    return cluster.run_inside(_ctr_argv(*arguments))
