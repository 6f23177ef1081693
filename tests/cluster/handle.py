"""A running cluster, as tests and the demo see it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.cluster import namespaces
from tests.cluster.binaries import find
from tests.cluster.errors import ClusterError
from tests.cluster.paths import ClusterPaths, clusters_root
from tests.cluster.processes import is_running, run


class Mode(StrEnum):
    """What a cluster consists of."""

    CONTROL_PLANE = "control-plane"
    NODE = "node"
    EXISTING = "existing"


@dataclass(frozen=True)
class Record:
    """What is written down about a running cluster of ours.

    Attributes
    ----------
    mode
        What it consists of.
    pid, started
        The process whose end is its end, and when that process began (clock ticks since boot).
    api_port
        Port of the API server on the host's loopback.
    prometheus_port
        Port of Prometheus on the host's loopback; 0 without a node.
    complete
        It came up as a whole.
    """

    mode: Mode
    pid: int
    started: int
    api_port: int
    prometheus_port: int = 0
    complete: bool = False

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return is_running(self.pid, self.started)

    def write(self, path: Path) -> None:
        """Write it down in one move."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Read it, or None when there is none that can be read."""
        try:
            document = json.loads(path.read_text())
            return cls(**{**document, "mode": Mode(document["mode"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes
    ----------
    name
        Its name; the context's for an existing one.
    mode
        What it consists of.
    kubeconfig
        File that reaches it from this machine.
    record
        More about one of ours; None for an existing one.
    """

    name: str
    mode: Mode
    kubeconfig: Path
    record: Record | None = None

    @property
    def prometheus_url(self) -> str:
        """Prometheus as this machine reaches it; pods use ``http://prometheus.monitoring:9090``.

        Raises
        ------
        ClusterError
            The cluster has no Prometheus of ours.
        """
        if self.record is None or not self.record.prometheus_port:
            raise ClusterError(f"The cluster {self.name} ({self.mode}) has no Prometheus of ours.")
        return f"http://127.0.0.1:{self.record.prometheus_port}"

    @property
    def volumes(self) -> Path:
        """The folder behind its model volumes, on this machine."""
        return ClusterPaths(self.name).volumes

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 120) -> str:
        """Run kubectl on the cluster, and return what it printed.

        Parameters
        ----------
        arguments
            Its arguments.
        given
            Text for its standard input (``-f -``).
        timeout
            Seconds it may take.

        Raises
        ------
        CommandError
            kubectl ended with an error.
        """
        return run([*self.kubectl_command(), *arguments], given=given, timeout=timeout)

    def kubectl_command(self) -> list[str]:
        """Return kubectl and the option that points it at the cluster."""
        program = find("kubectl") or Path("kubectl")
        return [str(program), f"--kubeconfig={self.kubeconfig}"]

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what ``kubectl get … -o json`` says."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return answer

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects on the server's side, as the field manager ``tests``."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        self.kubectl("apply", "--server-side", "--field-manager=tests", "-f", "-", given=text)

    def inside(self, argv: list[str]) -> list[str]:
        """Return the command that runs a command in the cluster's namespaces.

        Raises
        ------
        ClusterError
            The cluster has none: it is no node of ours.
        """
        if self.record is None or self.mode is not Mode.NODE:
            raise ClusterError(
                f"The cluster {self.name} ({self.mode}) has no node of ours on this machine: "
                "put images into a registry that it pulls from."
            )
        return namespaces.entering(namespaces.first_process(self.record.pid), argv)

    def run_inside(self, argv: list[str]) -> str:
        """Run a command in the cluster's namespaces, and return what it printed."""
        return run(self.inside(argv))

    def shell(self) -> int:
        """Run a shell for the user with KUBECONFIG set and our programs on PATH."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        if kubectl := find("kubectl"):
            environment["PATH"] = f"{kubectl.parent}:{environment.get('PATH', '')}"
        program = environment.get("SHELL", "/bin/sh")
        return subprocess.run([program], env=environment, check=False).returncode


def open_cluster(name: str) -> Cluster:
    """Return the running cluster of that name.

    Raises
    ------
    ClusterError
        None of that name is up.
    """
    found = find_cluster(name)
    if found is None:
        raise ClusterError(
            f"No cluster named {name} is up: `python -m tests.cluster up --name {name}` "
            "brings it up."
        )
    return found


def find_cluster(name: str) -> Cluster | None:
    """Return the cluster of that name if it is up, and up as a whole."""
    paths = ClusterPaths(name)
    record = Record.read(paths.record)
    if record is None or not record.complete or not record.alive:
        return None
    return Cluster(name, record.mode, paths.kubeconfig, record)


def names() -> list[str]:
    """Return the names of the clusters that have a state folder, up or not."""
    root = clusters_root()
    return sorted(path.name for path in root.glob("*") if path.is_dir()) if root.exists() else []
