"""The project's images: built from their Dockerfiles, and brought into a cluster.

``python -m tests.cluster.images`` builds them; ``--into NAME`` also brings them into a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import debian
from tests.cluster.buildah import Store, ensure_base, host_settings
from tests.cluster.containerd import ImportReport, import_image
from tests.cluster.errors import ClusterError, PreflightError
from tests.cluster.handle import Cluster, open_cluster
from tests.cluster.paths import REPOSITORY, ClusterPaths, cache_root, containerd_root
from tests.cluster.progress import Progress, Step

REGISTRY = "modelrollout.local"
# What the Dockerfiles copy; .dockerignore lets nothing else in.
SOURCES = (
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "operator/modelrollout",
    "inference_image/imagegen",
)
# Cold: torch unpacked before it is trimmed, then twice the images (in the builder's store and as a
# layout), then what containerd unpacks. Warm: thin layers.
COLD_MEGABYTES = 14_000
WARM_MEGABYTES = 1_000
# Of the inference image for CPUs, from the default index with its torch for all devices.
MOST_CPU_BYTES = 4_000_000_000
# Of each image; two, so that the one before can still be imported while the next is built.
KEPT = 2
BUILDS = 4


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes
    ----------
    name
        Full reference, as pods write it; its tag is a hash of what went in.
    layout
        Folder of an OCI image layout that holds it, uncompressed.
    """

    name: str
    layout: Path

    def unpacked_bytes(self) -> int:
        """Return the size of its layers, which are not compressed, and its two documents."""
        return _size(self.layout)


@dataclass(frozen=True)
class Images:
    """The project's two images."""

    inference: Image
    operator: Image

    def helm_values(self) -> dict[str, Any]:
        """Return the chart's values that name these images."""
        repository, _, tag = self.operator.name.rpartition(":")
        return {
            "image": {"repository": repository, "tag": tag},
            "config": {"runtimes": {"default": {"image": self.inference.name}}},
        }


@dataclass(frozen=True)
class _Recipe:
    """How an image is made."""

    component: str
    dockerfile: str
    arguments: tuple[str, ...] = ()
    cold_seconds: float = 60

    @property
    def name(self) -> str:
        """Full reference, with a hash of everything that goes in as its tag."""
        digest = hashlib.sha256(repr(self.arguments).encode())
        for source in (self.dockerfile, ".dockerignore", *SOURCES):
            for file in _files(REPOSITORY / source):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.relative_to(REPOSITORY)} {content}\n".encode())
        return f"{REGISTRY}/{self.component}:{digest.hexdigest()[:12]}"


def build_images(progress: Progress, *, variant: str = "cpu") -> Images:
    """Build both images, as far as they are not built already.

    Parameters
    ----------
    progress
        Where to show what goes on.
    variant
        ``cpu``, or ``cuda`` with everything that GPUs need.

    Raises
    ------
    PreflightError
        Not root, no buildah, or too little disk.
    CommandError
        A build failed; the message has its last lines.
    """
    recipes = (
        _Recipe("inference", "inference_image/Dockerfile", (f"VARIANT={variant}",), 180),
        _Recipe("operator", "operator/Dockerfile", (), 45),
    )
    root = cache_root() / "images"
    with _alone(root):
        inference, operator = (_build(recipe, root, progress) for recipe in recipes)
    return Images(inference, operator)


def import_images(
    cluster: Cluster, images: Images, progress: Progress
) -> tuple[ImportReport, ImportReport]:
    """Bring both images into a cluster; only what its containerd lacks is sent.

    Returns
    -------
    tuple
        Reports for the inference image and for the operator's.
    """
    inference, operator = (
        _import(cluster, image, progress) for image in (images.inference, images.operator)
    )
    return inference, operator


def _import(cluster: Cluster, image: Image, progress: Progress) -> ImportReport:
    component = _component(image.name)
    with progress.step(f"{component} image into {cluster.name}", key=f"import-{component}") as step:
        report = import_image(cluster, image.layout, image.name)
        step.say("is there" if report.unchanged else f"{report.sent_bytes / 1e6:.0f} MB sent")
        for store in (containerd_root(), ClusterPaths(cluster.name).containerd_clone):
            _share_blobs(image.layout, store)
    return report


def _build(recipe: _Recipe, root: Path, progress: Progress) -> Image:
    image = _image(recipe.name, root)
    if (image.layout / "index.json").exists():
        return image
    _check_machine(root, recipe, progress)
    store = Store(root)
    base = _base_image()
    ensure_base(store, base, progress)
    cold = not _layouts(root, recipe.component)
    key = f"image-{recipe.component}" + ("-cold" if cold else "")
    estimate = recipe.cold_seconds if cold else 10
    with progress.step(f"{recipe.component} image", key=key, estimate=estimate) as step:
        image = _image(_bud(recipe, store, base, step), root)
        step.say("writing")
        _export(store, image)
        step.say(f"{image.unpacked_bytes() / 1e6:.0f} MB")
    _forget_old(store, root, recipe.component)
    return image


def _image(name: str, root: Path) -> Image:
    return Image(name, root / "layouts" / name.rpartition("/")[2].replace(":", "-"))


def _bud(recipe: _Recipe, store: Store, base: str, step: Step) -> str:
    """Build an image, and return the name that fits what went in.

    A file may be saved while the build runs; then its layers are not what the name says, and the
    thin ones are built again.
    """
    arguments = [f"--build-arg={argument}" for argument in recipe.arguments]
    with host_settings(store.scratch) as volumes:
        for _ in range(BUILDS):
            name = recipe.name
            store.stream(
                step,
                "bud", "--isolation=chroot", "--network=host", "--layers", "--pull-never",
                f"--build-arg=BASE_IMAGE={base}", *arguments,
                *(f"--volume={volume}" for volume in volumes),
                f"--tag={name}", f"--file={REPOSITORY / recipe.dockerfile}", REPOSITORY,
            )  # fmt: skip
            if recipe.name == name:
                return name
    raise ClusterError(
        f"Files of the {recipe.component} image were changed in each of {BUILDS} builds: "
        "build it again when they are at rest."
    )


def _base_image() -> str:
    """Return the full reference of the image that both Dockerfiles begin with."""
    text = (REPOSITORY / "operator/Dockerfile").read_text()
    said = re.search(r"^ARG BASE_IMAGE=(\S+)$", text, re.MULTILINE)
    if said is None:
        raise PreflightError(["operator/Dockerfile has no line `ARG BASE_IMAGE=…`."])
    return f"docker.io/library/{said[1]}"


def _export(store: Store, image: Image) -> None:
    """Write the image's layout; layers that an older layout has are linked, not written again."""
    fresh = image.layout.with_name(f".{image.layout.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    blobs = fresh / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for old in _layouts(image.layout.parent.parent):
        for blob in (old / "blobs" / "sha256").iterdir():
            with contextlib.suppress(FileExistsError):
                (blobs / blob.name).hardlink_to(blob)
    store.export(image.name, fresh)
    used = _used_blobs(fresh)
    for blob in blobs.iterdir():
        if blob.name not in used:
            blob.unlink()
    fresh.rename(image.layout)


def _used_blobs(layout: Path) -> set[str]:
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    names = [_hex(manifest)]
    document = json.loads((layout / "blobs" / "sha256" / names[0]).read_text())
    return {*names, _hex(document["config"]), *(_hex(layer) for layer in document["layers"])}


def _hex(descriptor: dict[str, Any]) -> str:
    return str(descriptor["digest"]).removeprefix("sha256:")


def _share_blobs(layout: Path, store: Path) -> None:
    """Let containerd's blobs and ours be the same files: gigabytes are kept once, not twice."""
    held = store / "io.containerd.content.v1.content" / "blobs" / "sha256"
    for blob in (layout / "blobs" / "sha256").iterdir():
        theirs = held / blob.name
        with contextlib.suppress(OSError):  # another file system, or not this containerd's
            ours = blob.stat()
            if theirs.stat().st_size != ours.st_size or theirs.samefile(blob):
                continue
            link = blob.with_name(f".{blob.name}")
            link.hardlink_to(theirs)
            link.replace(blob)


def _forget_old(store: Store, root: Path, component: str) -> None:
    """Remove all but the newest images of a component, here and in the builder's store."""
    for old in _layouts(root, component)[KEPT:]:
        shutil.rmtree(old)
    store.forget_old(f"{REGISTRY}/{component}", keep=KEPT)


def _layouts(root: Path, component: str = "*") -> list[Path]:
    """Return the layouts of a component, or of all, newest first."""
    found = [path for path in (root / "layouts").glob(f"{component}-*") if path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _check_machine(root: Path, recipe: _Recipe, progress: Progress) -> None:
    if os.geteuid() != 0:
        raise PreflightError(["Images are built as root: run this with sudo."])
    cold = not _layouts(root, recipe.component)
    needed = COLD_MEGABYTES if cold and recipe.component == "inference" else WARM_MEGABYTES
    free = shutil.disk_usage(root).free // 1_000_000
    if free < needed:
        problem = (
            f"The {recipe.component} image needs {needed} MB of disk below {root}; {free} MB are "
            "free. Make room, or set XDG_CACHE_HOME to a folder on a larger disk."
        )
        raise PreflightError([problem])
    debian.ensure(debian.IMAGES, progress)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait until nobody else builds; they may be building the very same images."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _component(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )


def _size(layout: Path) -> int:
    return sum(blob.stat().st_size for blob in (layout / "blobs" / "sha256").iterdir())


def main(argv: Sequence[str] | None = None) -> int:
    """Build the images, and bring them into a cluster if one is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.images", description=__doc__)
    parser.add_argument("--into", metavar="NAME", help="a running cluster to bring them into")
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(argv)
    try:
        with Progress() as progress:
            images = build_images(progress, variant=options.variant)
            if options.into:
                import_images(open_cluster(options.into), images, progress)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{images.inference.name}\n{images.operator.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
