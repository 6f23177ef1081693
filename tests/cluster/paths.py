"""Where things lie: the cache shared by all clusters, and the state of one cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent
GO_MODULES = PACKAGE / "go"
MANIFESTS = PACKAGE / "manifests"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")


def cache_root() -> Path:
    """Return the project's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "modelrollout"


def programs_root() -> Path:
    """Return the folder with one folder of built or downloaded programs per upstream."""
    return cache_root() / "programs"


def links_folder() -> Path:
    """Return the folder with links to the current programs, fit for ``PATH``."""
    return cache_root() / "bin"


def containerd_root() -> Path:
    """Return the image store that the first running cluster uses."""
    return cache_root() / "containerd"


def clusters_root() -> Path:
    """Return the folder that holds one state folder per cluster."""
    return cache_root() / "clusters"


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster.

    Attributes
    ----------
    name
        Name of the cluster: small letters, digits and dashes, at most 30.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"A cluster cannot be named {self.name!r}: use small letters, digits and dashes, "
                "beginning with a letter, at most 30."
            )

    @property
    def root(self) -> Path:
        """The state folder; removed when the cluster goes down."""
        return clusters_root() / self.name

    @property
    def lock(self) -> Path:
        """Held while the cluster is brought up or down."""
        return clusters_root() / f".{self.name}.lock"

    @property
    def record(self) -> Path:
        """What the running cluster is: mode, processes, ports."""
        return self.root / "cluster.json"

    @property
    def plan(self) -> Path:
        """What the supervisor is to run."""
        return self.root / "plan.json"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """Configuration files and the kubeconfigs of the components."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """One log per program."""
        return self.root / "logs"

    @property
    def failed_logs(self) -> Path:
        """The logs of the last start that failed; they outlive the state folder."""
        return cache_root() / "failed" / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, with a loopback address."""
        return self.root / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """The folder behind the cluster's model volumes; anybody may write to it."""
        return self.root / "volumes"

    @property
    def containerd_clone(self) -> Path:
        """The image store of a cluster that runs beside the one which uses the cache's."""
        return self.root / "containerd"

    def create(self) -> None:
        """Make the folders."""
        for folder in (self.root, self.pki, self.config, self.logs, self.volumes):
            folder.mkdir(parents=True, exist_ok=True)
        self.volumes.chmod(0o777)
