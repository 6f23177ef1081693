"""OCI image layouts: reading one that buildah wrote, and writing a tiny one ourselves."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.upstreams import architecture

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Blob:
    """One file of a layout, named by its content.

    Attributes
    ----------
    digest
        ``sha256:`` and 64 hexadecimal digits.
    size
        Bytes.
    path
        Where it is.
    """

    digest: str
    size: int
    path: Path


@dataclass(frozen=True)
class Layout:
    """The one image of a layout folder.

    Attributes
    ----------
    folder
        The layout.
    descriptor
        The manifest's descriptor, as the index has it.
    blobs
        Manifest first, then configuration and layers.
    """

    folder: Path
    descriptor: dict[str, Any]
    blobs: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return str(self.descriptor["digest"])


def read_layout(folder: Path) -> Layout:
    """Read a layout; of several images in it, the last one written.

    Raises
    ------
    ClusterError
        The folder is no layout, or a blob of it is not there.
    """
    try:
        index = json.loads((folder / "index.json").read_text())
        descriptor = index["manifests"][-1]
        manifest_blob = _blob(folder, descriptor)
        manifest = json.loads(manifest_blob.path.read_text())
        parts = [manifest["config"], *manifest["layers"]]
    except (OSError, LookupError, ValueError) as error:
        raise ClusterError(
            f"{folder} is no OCI image layout ({error}): write one with "
            f"`buildah push --disable-compression IMAGE oci:{folder}`."
        ) from error
    return Layout(folder, descriptor, (manifest_blob, *(_blob(folder, part) for part in parts)))


def _blob(folder: Path, descriptor: dict[str, Any]) -> Blob:
    digest = str(descriptor["digest"])
    algorithm, _, name = digest.partition(":")
    return Blob(digest, int(descriptor["size"]), folder / "blobs" / algorithm / name)


def index_naming(layout: Layout, name: str) -> bytes:
    """Return an index that names the layout's image as containerd understands it."""
    annotations = {"io.containerd.image.name": name}
    descriptor = {**layout.descriptor, "annotations": annotations}
    return _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [descriptor]})


@dataclass(frozen=True)
class ScratchImage:
    """An image of one static program and nothing else.

    Attributes
    ----------
    program
        The file; it lies at ``/`` under its own name, and is what runs.
    user
        Numeric user and group.
    """

    program: Path
    user: str = "65532:65532"

    def write(self, folder: Path) -> None:
        """Write it as a layout; the same program gives the same digests."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        unfinished = folder / "layer.tar"
        with tarfile.open(unfinished, "w") as tar:
            entry = tarfile.TarInfo(self.program.name)
            entry.mode = 0o755
            entry.size = self.program.stat().st_size
            with self.program.open("rb") as file:
                tar.addfile(entry, file)
        with unfinished.open("rb") as file:
            layer = hashlib.file_digest(file, "sha256").hexdigest()
        size = unfinished.stat().st_size
        unfinished.rename(blobs / layer)
        config = {
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{self.program.name}"], "User": self.user},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        }
        layers = [{"mediaType": _LAYER, "digest": f"sha256:{layer}", "size": size}]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, **_put(blobs, _json(config))},
            "layers": layers,
        }
        described = {"mediaType": _MANIFEST, **_put(blobs, _json(manifest))}
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
        (folder / "index.json").write_bytes(_json(index))
        (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _put(blobs: Path, data: bytes) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"digest": f"sha256:{name}", "size": len(data)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def write_archive(layout: Layout, name: str, blobs: tuple[Blob, ...], sink: Any) -> None:
    """Write a tar with index and the given blobs of a layout to a file object.

    What the receiver holds already may be left out of ``blobs``.
    """
    with tarfile.open(fileobj=sink, mode="w|", bufsize=1 << 20) as tar:
        for file, data in (
            ("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
            ("index.json", index_naming(layout, name)),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for blob in blobs:
            entry = tarfile.TarInfo(f"blobs/{blob.digest.replace(':', '/')}")
            entry.size = blob.size
            with blob.path.open("rb") as source:
                tar.addfile(entry, source)
