"""A cluster's own cgroup in every hierarchy, version 1, 2 or both.

A cluster's processes live in a cgroup of its own, in a cgroup namespace that shows it as the root,
so that a kubelet neither sees nor touches another's pods. (Told apart by the kubelet's
``cgroupRoot`` alone, two do not run side by side: cAdvisor walks the whole tree, and asks the wrong
containerd about every container of the other for three seconds.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import ClusterPaths
from tests.cluster.processes import wait_for

_MOUNTS = Path("/proc/self/mounts")
_ROOT = Path("/sys/fs/cgroup")
# What the kubelet counts and limits (its cgroup manager refuses a node without them).
WANTED = ("cpu", "cpuset", "memory", "pids")
# The programs that are no pods. In version 2 a cgroup with children holds no processes itself.
_LEAF = "programs"


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy.

    Attributes
    ----------
    path
        Where it is mounted.
    kind
        ``cgroup`` or ``cgroup2``.
    controllers
        What it controls; in version 1 with ``name=…`` for one that controls nothing.
    """

    path: Path
    kind: str
    controllers: tuple[str, ...]


def hierarchies() -> list[Hierarchy]:
    """Return the hierarchies that are mounted below ``/sys/fs/cgroup``."""
    known = _version_1_controllers()
    found = []
    for line in _MOUNTS.read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        path = Path(where)
        if kind not in {"cgroup", "cgroup2"} or not path.is_relative_to(_ROOT):
            continue
        if kind == "cgroup2":
            controllers = (path / "cgroup.controllers").read_text().split()
        else:
            named = (option for option in options.split(",") if option.startswith("name="))
            controllers = [option for option in options.split(",") if option in known]
            controllers += list(named)
        found.append(Hierarchy(path, kind, tuple(controllers)))
    return found


def _version_1_controllers() -> set[str]:
    try:
        lines = Path("/proc/cgroups").read_text().splitlines()
    except OSError:
        return set()
    return {line.split()[0] for line in lines if not line.startswith("#")}


def missing_controllers() -> list[str]:
    """Return the controllers that this machine does not offer."""
    offered = {name for hierarchy in hierarchies() for name in hierarchy.controllers}
    return [name for name in WANTED if name not in offered]


def _folder(hierarchy: Hierarchy, cluster: str) -> Path:
    # A cluster of the same name in another cache is another cluster, and may be running.
    state = hashlib.sha256(str(ClusterPaths(cluster).root).encode()).hexdigest()[:8]
    return hierarchy.path / f"modelrollout-{cluster}-{state}"


def create(cluster: str) -> None:
    """Make the cluster's cgroup in every hierarchy."""
    for hierarchy in hierarchies():
        folder = _folder(hierarchy, cluster)
        if hierarchy.kind == "cgroup2":
            for controller in hierarchy.controllers:
                # One that cannot be handed down does not hold up the others.
                with contextlib.suppress(OSError):
                    (hierarchy.path / "cgroup.subtree_control").write_text(f"+{controller}")
        for made in (folder, folder / _LEAF):
            made.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers and hierarchy.kind == "cgroup":
                # An empty cpuset of version 1 takes no process.
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (made / file).write_text((hierarchy.path / file).read_text())


def entering(cluster: str, command: list[str]) -> list[str]:
    """Return the command that runs a command in the cluster's cgroup, which it sees as the root.

    A cgroup namespace has the cgroup as its root in which the process was that made it; it moves
    to the leaf after that.
    """
    folders = [_folder(hierarchy, cluster) for hierarchy in hierarchies()]

    def move(below: str) -> str:
        return "\n".join(f"echo $$ > '{folder}{below}/cgroup.procs'" for folder in folders)

    inner = f'set -e\n{move(f"/{_LEAF}")}\nexec "$@"'
    outer = f'set -e\n{move("")}\nexec unshare --cgroup "$@"'
    return ["sh", "-c", outer, "sh", "sh", "-c", inner, "sh", *command]


def mount_commands() -> list[list[str]]:
    """Return what shows the hierarchies as they are seen in the cgroup namespace."""
    commands = []
    all_of_them = hierarchies()
    if all(hierarchy.path != _ROOT for hierarchy in all_of_them):
        commands.append(["mount", "-t", "tmpfs", "-o", "mode=755", "cgroups", str(_ROOT)])
        commands.append(["mkdir", *(str(hierarchy.path) for hierarchy in all_of_them)])
    for hierarchy in all_of_them:
        mount = ["mount", "-t", hierarchy.kind]
        if hierarchy.kind == "cgroup":
            named = any(name.startswith("name=") for name in hierarchy.controllers)
            mount += ["-o", ",".join((*(["none"] if named else []), *hierarchy.controllers))]
        commands.append([*mount, hierarchy.kind, str(hierarchy.path)])
        if hierarchy.kind == "cgroup2":
            hand_down = "for c in $(cat cgroup.controllers); do echo +$c; done"
            each = f"cd '{hierarchy.path}' && {hand_down} | while read -r c; do "
            commands.append(["sh", "-c", f"{each} echo $c > cgroup.subtree_control || :; done"])
    return commands


def of_cluster(cluster: str) -> list[Path]:
    """Return the cluster's cgroups that exist, one per hierarchy at most."""
    folders = (_folder(hierarchy, cluster) for hierarchy in hierarchies())
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

        wait_for(gone, what=f"The end of cgroup {root}", timeout=20, every=0.02)


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
