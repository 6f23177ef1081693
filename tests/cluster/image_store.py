"""containerd's image store: the cache's own for one cluster at a time, a clone for the next.

The store holds the unpacked images, so it is worth keeping. containerd locks its databases, so two
cannot use one store. The clone is made of hard links, which take seconds and no space: contents and
snapshots are never changed in place, only made and removed, and a container's writes copy the file
first (that is what overlayfs does). Databases are changed in place: those are copied.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import IO

from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.paths import ClusterPaths, containerd_root
from tests.cluster.processes import run, try_lock

_ATTEMPTS = 10
_CONTENT = "io.containerd.content.v1.content"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_DATABASES = (
    Path("io.containerd.metadata.v1.bolt/meta.db"),
    Path(_SNAPSHOTS) / "metadata.db",
)
# The rest of the store belongs to the containers of its own cluster.
_FOLDERS = (Path(_CONTENT) / "blobs", Path(_SNAPSHOTS) / "snapshots")


def claim(paths: ClusterPaths) -> tuple[Path, IO[str] | None]:
    """Return a store for a cluster to use, and the file whose lock keeps it.

    The file must be inherited by the cluster's processes: it is free again when the last of them
    is gone, however they ended. A clone needs none.
    """
    shared = containerd_root()
    shared.mkdir(parents=True, exist_ok=True)
    lock = shared.with_suffix(".lock").open("w")
    if try_lock(lock):
        return shared, lock
    lock.close()
    clone(shared, paths.containerd_clone)
    return paths.containerd_clone, None


def clone(store: Path, into: Path) -> None:
    """Make a clone of a store that may be in use.

    Raises
    ------
    ClusterError
        The store changed all the time.
    """
    if not (store / _DATABASES[0]).exists():
        into.mkdir(parents=True, exist_ok=True)
        return
    for _ in range(_ATTEMPTS):
        shutil.rmtree(into, ignore_errors=True)
        before = _stamps(store)
        # What vanishes while it is copied makes cp fail, and the store has changed.
        with contextlib.suppress(CommandError):
            _copy(store, into)
            if _stamps(store) == before:
                return
        time.sleep(0.5)
    raise ClusterError(f"{store} did not keep still long enough to be cloned; try again.")


def _copy(store: Path, into: Path) -> None:
    for folder in _FOLDERS:
        (into / folder).parent.mkdir(parents=True, exist_ok=True)
        # cp rather than Python: an image with torch has some 40,000 files.
        run(["cp", "--archive", "--link", store / folder, into / folder.parent])
    for database in _DATABASES:
        (into / database).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(store / database, into / database)


def _stamps(store: Path) -> list[tuple[int, int]]:
    states = [(store / database).stat() for database in _DATABASES]
    return [(state.st_mtime_ns, state.st_size) for state in states]
