"""What the cluster runs: each upstream's programs, how they are built, where releases lie.

Versions are pinned once, in the ``go.mod`` files below ``go/``; everything here reads them there.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.paths import GO_MODULES, programs_root

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return Go's name of this machine's processor.

    Raises
    ------
    ClusterError
        The processor is neither amd64 nor arm64.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise ClusterError(f"The cluster runs on {', '.join(_MACHINES)}, not on {machine}.")
    return _MACHINES[machine]


@dataclass(frozen=True)
class Release:
    """An official download.

    Attributes
    ----------
    url
        Address of a program or a ``.tar.gz``; ``{version}``, ``{number}`` (without the v),
        ``{arch}`` and ``{program}`` are filled in.
    checksum
        Address of its SHA-256, alone or in a list of ``sum  file`` lines.
    per_program
        One download per program, not one archive with all.
    """

    url: str
    checksum: str
    per_program: bool = False


@dataclass(frozen=True)
class Upstream:
    """One upstream project.

    Attributes
    ----------
    name
        Its name, and the folder of our Go module for it.
    title
        Its name for people.
    module
        The Go module whose pinned version is the version.
    programs
        The programs wanted from it.
    packages
        What ``go build`` is given: our own main package, or theirs.
    multicall
        One binary is all the programs, by the name it is called under.
    stamps
        Variables that the linker sets; ``{version}`` and ``{number}`` are filled in.
    tags
        Build tags.
    build_seconds
        How long a cold build took on two cores; the first estimate that is shown.
    disk_megabytes
        What module download, build cache and programs took together.
    release
        The official download, if there is one that fits.
    """

    name: str
    title: str
    module: str
    programs: tuple[str, ...]
    packages: tuple[str, ...] = (".",)
    multicall: bool = False
    stamps: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    build_seconds: float = 10
    disk_megabytes: int = 100
    release: Release | None = None

    @property
    def source(self) -> Path:
        """The folder of our Go module."""
        return GO_MODULES / self.name

    @cached_property
    def version(self) -> str:
        """The pinned version, such as ``v1.36.3``."""
        if not self.module:
            return ""
        pin = re.search(
            rf"^(?:require |\t){re.escape(self.module)} (v\S+)",
            (self.source / "go.mod").read_text(),
            re.MULTILINE,
        )
        if pin is None:
            raise ClusterError(f"{self.source}/go.mod does not require {self.module}.")
        return pin[1]

    @cached_property
    def key(self) -> str:
        """A hash of everything a build depends on in this repository: a new pin is a new key."""
        digest = hashlib.sha256()
        files = [self.source / "go.mod", self.source / "go.sum", *self.source.rglob("*.go")]
        for path in sorted(path for path in files if path.exists()):
            digest.update(f"{path.relative_to(self.source)}\0".encode())
            digest.update(path.read_bytes())
        digest.update(repr((self.programs, self.packages, self.stamps, self.tags)).encode())
        digest.update(architecture().encode())
        return digest.hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where its programs lie in the cache."""
        return programs_root() / f"{self.name}-{self.version or 'own'}-{self.key}"

    def filled(self, text: str, program: str = "") -> str:
        """Fill version, architecture and program into a text."""
        version = _marketing_version(self)
        return text.format(
            version=version, number=version[1:], arch=architecture(), program=program
        )


def _marketing_version(upstream: Upstream) -> str:
    """Return the version that people know; Prometheus numbers its Go module another way."""
    if upstream.name != "prometheus":
        return upstream.version
    # v0.315.0 is Prometheus 3.15.0: the minor number is the major's hundreds (its VERSION file).
    _, minor, patch = upstream.version.split(".")
    return f"v{int(minor) // 100}.{int(minor) % 100}.{patch}"


_GITHUB = "https://github.com"

KUBERNETES = Upstream(
    name="kubernetes",
    title="Kubernetes",
    module="k8s.io/kubernetes",
    programs=(
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ),
    multicall=True,
    stamps=(
        "k8s.io/component-base/version.gitVersion={version}",
        "k8s.io/component-base/version.gitTreeState=clean",
    ),
    build_seconds=420,
    disk_megabytes=4500,
    release=Release(
        url="https://dl.k8s.io/{version}/bin/linux/{arch}/{program}",
        checksum="https://dl.k8s.io/{version}/bin/linux/{arch}/{program}.sha256",
        per_program=True,
    ),
)
ETCD = Upstream(
    name="etcd",
    title="etcd",
    module="go.etcd.io/etcd/server/v3",
    programs=("etcd",),
    packages=("go.etcd.io/etcd/server/v3",),
    build_seconds=60,
    disk_megabytes=600,
    release=Release(
        url=_GITHUB + "/etcd-io/etcd/releases/download/{version}/"
        "etcd-{version}-linux-{arch}.tar.gz",
        checksum=_GITHUB + "/etcd-io/etcd/releases/download/{version}/SHA256SUMS",
    ),
)
CONTAINERD = Upstream(
    name="containerd",
    title="containerd",
    module="github.com/containerd/containerd/v2",
    programs=("containerd", "containerd-shim-runc-v2", "ctr"),
    packages=tuple(
        f"github.com/containerd/containerd/v2/cmd/{program}"
        for program in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    stamps=("github.com/containerd/containerd/v2/version.Version={version}",),
    tags=("no_btrfs", "no_devmapper", "no_zfs"),
    build_seconds=90,
    disk_megabytes=1000,
    release=Release(
        url=_GITHUB + "/containerd/containerd/releases/download/{version}/"
        "containerd-static-{number}-linux-{arch}.tar.gz",
        checksum=_GITHUB + "/containerd/containerd/releases/download/{version}/"
        "containerd-static-{number}-linux-{arch}.tar.gz.sha256sum",
    ),
)
COREDNS = Upstream(
    name="coredns",
    title="CoreDNS",
    module="github.com/coredns/coredns",
    programs=("coredns",),
    build_seconds=120,
    disk_megabytes=600,
    release=Release(
        url=_GITHUB + "/coredns/coredns/releases/download/{version}/"
        "coredns_{number}_linux_{arch}.tgz",
        checksum=_GITHUB + "/coredns/coredns/releases/download/{version}/"
        "coredns_{number}_linux_{arch}.tgz.sha256",
    ),
)
PROMETHEUS = Upstream(
    name="prometheus",
    title="Prometheus",
    module="github.com/prometheus/prometheus",
    programs=("prometheus",),
    packages=("github.com/prometheus/prometheus/cmd/prometheus",),
    stamps=("github.com/prometheus/common/version.Version={number}",),
    tags=("remove_all_sd", "enable_kubernetes_sd"),
    build_seconds=220,
    disk_megabytes=1800,
    release=Release(
        url=_GITHUB + "/prometheus/prometheus/releases/download/{version}/"
        "prometheus-{number}.linux-{arch}.tar.gz",
        checksum=_GITHUB + "/prometheus/prometheus/releases/download/{version}/sha256sums.txt",
    ),
)
HELM = Upstream(
    name="helm",
    title="Helm",
    module="helm.sh/helm/v3",
    programs=("helm",),
    packages=("helm.sh/helm/v3/cmd/helm",),
    stamps=("helm.sh/helm/v3/internal/version.version={version}",),
    build_seconds=100,
    disk_megabytes=1100,
    release=Release(
        url="https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz",
        checksum="https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz.sha256sum",
    ),
)
TESTPOD = Upstream(
    name="testpod",
    title="test pod",
    module="",
    programs=("testpod", "pause"),
    packages=("./testpod", "./pause"),
    build_seconds=5,
    disk_megabytes=60,
)

CONTROL_PLANE = (KUBERNETES, ETCD)
EVERYTHING = (KUBERNETES, PROMETHEUS, CONTAINERD, COREDNS, HELM, ETCD, TESTPOD)
