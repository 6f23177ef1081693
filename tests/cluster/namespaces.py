"""A cluster's own process, mount, network and cgroup namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import cgroups, network
from tests.cluster.paths import REPOSITORY, ClusterPaths
from tests.cluster.processes import start_time, wait_for

# The kubelet sets these for the whole machine, unless they read so already (its
# setupKernelTunables). A file of ours lies over each inside the namespace: it reads what it wants,
# writes nowhere, and the machine stays as it was.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# Folders with fixed names that kubelet, containerd and the CNI library write to: shown as they
# are, changed only within the cluster.
COVERED = ("/var/lib", "/var/log")


def setup_commands(paths: ClusterPaths) -> list[list[str]]:
    """Return what makes fresh namespaces a machine's: mounts, interfaces, a default route."""
    return [*_mounts(paths), *_interfaces()]


def _mounts(paths: ClusterPaths) -> list[list[str]]:
    commands = [["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]]
    commands += cgroups.mount_commands()
    for folder in COVERED:
        layers = Path("/run/covered") / folder.strip("/").replace("/", "-")
        upper, work = layers / "upper", layers / "work"
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        commands.append(["mkdir", "-p", str(upper), str(work)])
        commands.append(["mount", "-t", "overlay", "-o", options, "overlay", folder])
    for name, value in KUBELET_SYSCTLS.items():
        stand_in = paths.config / f"sysctl-{name.replace('/', '-')}"
        stand_in.write_text(f"{value}\n")
        commands.append(["mount", "--bind", str(stand_in), f"/proc/sys/{name}"])
    return commands


def _interfaces() -> list[list[str]]:
    bridge, neighbour = network.NODE_BRIDGE, network.SILENT_NEIGHBOUR
    address = f"{network.NODE_ADDRESS}/{network.NODE_PREFIX}"
    reached = ["dev", bridge, "lladdr", network.SILENT_HARDWARE_ADDRESS]
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", bridge, "type", "bridge"],
        ["ip", "address", "add", address, "dev", bridge],
        ["ip", "link", "set", bridge, "up"],
        ["ip", "neighbour", "add", neighbour, *reached, "nud", "permanent"],
        ["ip", "route", "add", "default", "via", neighbour],
        ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
    ]


def start_supervisor(
    paths: ClusterPaths, *, isolated: bool, descriptors: tuple[int, ...] = ()
) -> int:
    """Start a cluster's supervisor, which reads its plan, and return its process id.

    Parameters
    ----------
    paths
        Files of the cluster.
    isolated
        In namespaces and a cgroup of its own; needs root. The process returned is then the one
        outside, whose end is the end of everything inside.
    descriptors
        Open files and sockets it is to inherit.
    """
    command = [sys.executable, "-m", "tests.cluster.supervisor", str(paths.plan)]
    if isolated:
        apart = ["--fork", "--pid", "--kill-child", "--mount", "--mount-proc", "--net", "--ipc"]
        command = ["unshare", *apart, "--propagation", "private", *command]
        command = cgroups.entering(paths.name, command)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (paths.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
            start_new_session=True,
        )
    return process.pid


def first_process(outer: int) -> int:
    """Return the first process inside, as seen from outside, given the ``unshare`` process.

    Raises
    ------
    ClusterError
        There is none.
    """

    def child() -> int | None:
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0]) if children else None

    return wait_for(child, what="The start of the cluster's first process", timeout=10, every=0.02)


def entering(first: int, argv: list[str]) -> list[str]:
    """Return the command that runs a command inside the cluster's namespaces."""
    return ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--ipc", "--", *argv]


def inner_processes(outer: int) -> list[tuple[int, int]]:
    """Return the process ids and start times of the children of a cluster's outer process."""
    try:
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    except OSError:
        return []
    pairs = ((int(child), start_time(int(child))) for child in children)
    return [(pid, started) for pid, started in pairs if started is not None]
