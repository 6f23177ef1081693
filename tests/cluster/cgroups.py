"""A cluster's own cgroup in every hierarchy, version 1, 2 or both."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.cluster.processes import wait_for

_MOUNTS = Path("/proc/self/mounts")
# What the kubelet counts and limits (its cgroup manager refuses a node without them).
WANTED = ("cpu", "cpuset", "memory", "pids")


def hierarchies() -> list[Path]:
    """Return where the cgroup hierarchies are mounted."""
    found = []
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in {"cgroup", "cgroup2"}:
            found.append(Path(where))
    return found


def missing_controllers() -> list[str]:
    """Return the controllers that this machine does not offer."""
    offered: set[str] = set()
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup":
            offered.update(options.split(","))
        elif kind == "cgroup2":
            with contextlib.suppress(OSError):
                offered.update(Path(where, "cgroup.controllers").read_text().split())
    return [name for name in WANTED if name not in offered]


def name_of(cluster: str) -> str:
    """Return the path of a cluster's cgroup, as the kubelet is told it."""
    return f"/modelrollout-{cluster}"


def create(cluster: str) -> None:
    """Make the cluster's cgroup, with its controllers handed down."""
    for hierarchy in hierarchies():
        folder = hierarchy / name_of(cluster).strip("/")
        folder.mkdir(exist_ok=True)
        if (folder / "cgroup.controllers").exists():
            _hand_down(hierarchy)
            _hand_down(folder)
        elif (folder / "cpuset.cpus").exists():
            # An empty cpuset of version 1 takes no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (folder / file).write_text((hierarchy / file).read_text())


def _hand_down(folder: Path) -> None:
    offered = (folder / "cgroup.controllers").read_text().split()
    for controller in offered:
        # One that cannot be handed down (a realtime policy, say) does not hold up the others.
        with contextlib.suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def of_cluster(cluster: str) -> list[Path]:
    """Return the cluster's cgroups that exist, one per hierarchy at most."""
    folders = (hierarchy / name_of(cluster).strip("/") for hierarchy in hierarchies())
    return [folder for folder in folders if folder.exists()]


def remove(cluster: str) -> None:
    """Remove the cluster's cgroup in every hierarchy, leaf first, ending what is left in it.

    Raises
    ------
    ClusterError
        A process in it does not end.
    """
    for root in of_cluster(cluster):

        def gone(root: Path = root) -> bool:
            for folder, _, _ in os.walk(root, topdown=False):
                _kill_members(Path(folder))
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            return not root.exists()

        wait_for(gone, what=f"The end of cgroup {root}", timeout=20, every=0.05)


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
