"""Debian packages: checked, and installed with apt-get where we are root."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import PreflightError
from tests.cluster.processes import run
from tests.cluster.progress import Progress

_SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Package:
    """A package, and a file that shows that it is there.

    Attributes
    ----------
    name
        The package's name in Debian and Ubuntu.
    program
        A program on ``PATH``, or an absolute path.
    why
        What it is for.
    """

    name: str
    program: str
    why: str

    @property
    def present(self) -> bool:
        """Whether the program is there, however it came."""
        if self.program.startswith("/"):
            return Path(self.program).exists()
        paths = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATHS}"
        return shutil.which(self.program, path=paths) is not None


OPENSSL = Package("openssl", "openssl", "keys and certificates")
NODE = (
    OPENSSL,
    Package("util-linux", "unshare", "namespaces"),
    Package("iproute2", "ip", "network interfaces"),
    Package("nftables", "nft", "Services, by kube-proxy"),
    Package("runc", "runc", "containers"),
    Package("containernetworking-plugins", "/usr/lib/cni/bridge", "the pods' network"),
)
IMAGES = (
    Package("buildah", "buildah", "building images"),
    Package("skopeo", "skopeo", "writing images to the disk"),
    Package("debootstrap", "debootstrap", "a base image where no registry answers"),
)


def missing(packages: tuple[Package, ...]) -> list[Package]:
    """Return the packages that are not there."""
    return [package for package in packages if not package.present]


def ensure(packages: tuple[Package, ...], progress: Progress) -> None:
    """Install what is missing, after saying so.

    Raises
    ------
    PreflightError
        Something is missing, and we are not root or there is no apt-get.
    CommandError
        apt-get failed.
    """
    wanted = missing(packages)
    if not wanted:
        return
    names = [package.name for package in wanted]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PreflightError(
            [
                f"{package.program} is missing ({package.why}): on Debian or Ubuntu, as root: "
                f"apt-get install {package.name}"
                for package in wanted
            ]
        )
    progress.say(f"Installing Debian packages that are missing: {' '.join(names)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step("Debian packages", key="debian", estimate=20) as step:
        step.say("apt-get update")
        run(["apt-get", "update", "--quiet"], env=quiet)
        step.say(f"installing {len(names)}")
        run(
            ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *names],
            env=quiet,
        )
