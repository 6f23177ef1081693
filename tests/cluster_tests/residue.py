"""Looking for what a cluster may have left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cgroups, namespaces
from tests.cluster.handle import Cluster
from tests.cluster.namespaces import KUBELET_SYSCTLS
from tests.cluster.paths import ClusterPaths

_KINDS = ("pid", "mnt", "net", "ipc", "cgroup")
_FOLDERS = ("/var/lib", "/var/log", "/run", "/opt", "/etc/cni", "/run/netns")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that name something below a folder."""
    lines = (_command_line(pid) for pid in _processes())
    return [line for line in lines if f"{folder}/" in line and "setpriv" not in line]


def namespaces_of(cluster: Cluster) -> set[str]:
    """Return the namespaces that a cluster has for itself."""
    assert cluster.record is not None
    first = namespaces.first_process(cluster.record.pid)
    own = {_namespace(first, kind) for kind in _KINDS}
    assert not own & {_namespace("self", kind) for kind in _KINDS}
    return own


def namespaces_alive(wanted: set[str]) -> set[str]:
    """Return those of the namespaces that a process is in still."""
    alive = set()
    for pid in _processes():
        for kind in _KINDS:
            try:
                alive.add(_namespace(pid, kind))
            except OSError:
                continue
    return alive & wanted


@dataclass(frozen=True)
class Machine:
    """What of the machine a cluster could change.

    Attributes
    ----------
    interfaces
        Names of network interfaces.
    mounts
        Mounts that name a cluster, or cover what one covers.
    files
        Entries of the folders that Kubernetes writes to.
    settings
        Kernel settings.
    """

    interfaces: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    settings: tuple[str, ...]

    @classmethod
    def now(cls, name: str) -> Machine:
        """Look at the machine, with an eye on the cluster of that name."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        told = (str(ClusterPaths(name).root), *(f" {folder} " for folder in _FOLDERS))
        entries = (str(p) for f in _FOLDERS if Path(f).exists() for p in Path(f).iterdir())
        names = (*KUBELET_SYSCTLS, "net/ipv4/ip_forward")
        return cls(
            frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            frozenset(line for line in lines if any(word in line for word in told)),
            frozenset(entries),
            tuple(Path("/proc/sys", setting).read_text() for setting in names),
        )


def assert_nothing_left(name: str, owned: set[str], before: Machine) -> None:
    """Assert that a cluster that went down left nothing outside the cache."""
    paths = ClusterPaths(name)
    assert processes_of(paths.root) == []
    assert namespaces_alive(owned) == set()
    assert cgroups.of_cluster(name) == []
    assert not paths.root.exists()
    assert Machine.now(name) == before


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
