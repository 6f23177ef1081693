"""Is this machine ready for a cluster? Every answer "no" says how to make it a "yes"."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tests.cluster import binaries, cgroups, debian, gobuild, network, releases
from tests.cluster.errors import ClusterError, PreflightError
from tests.cluster.handle import Mode
from tests.cluster.namespaces import COVERED
from tests.cluster.paths import cache_root
from tests.cluster.progress import Progress
from tests.cluster.upstreams import CONTROL_PLANE, EVERYTHING, Upstream

# etcd, logs and pods' files of one cluster; the images of the add-ons, unpacked.
STATE_MEGABYTES = 500
STORE_MEGABYTES = 500

# Each is tried in throw-away namespaces; the second item says how to get what the first is about.
_OVERLAY = """
mount -t tmpfs probe /mnt && cd /mnt && mkdir lower upper work merged &&
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work probe merged
"""
_NAT = "add table ip probe; add chain ip probe nat { type nat hook postrouting priority srcnat; }"
KERNEL_PROBES = (
    ("overlay file systems", "CONFIG_OVERLAY_FS (modprobe overlay)", _OVERLAY),
    ("network bridges", "CONFIG_BRIDGE (modprobe bridge)", "ip link add probe0 type bridge"),
    (
        "virtual network cables",
        "CONFIG_VETH (modprobe veth)",
        "ip link add probe0 type veth peer name probe1",
    ),
    (
        "nftables with NAT",
        "CONFIG_NF_TABLES and CONFIG_NFT_NAT (modprobe nf_tables nft_nat)",
        f"nft '{_NAT}'",
    ),
)


def prepare(mode: Mode, progress: Progress, *, port: int = 0, images: bool = False) -> None:
    """Check the machine, then get packages and programs that are missing, side by side.

    Parameters
    ----------
    mode
        What is to run.
    progress
        Where to show what goes on.
    port
        The loopback port asked for; 0 for any.
    images
        Images are to be built, too.

    Raises
    ------
    PreflightError
        The machine lacks something that cannot be got from here; all of it is in the message.
    """
    upstreams = EVERYTHING if mode is Mode.NODE else CONTROL_PLANE
    problems = check(mode, upstreams, port)
    if problems:
        raise PreflightError(problems)
    packages: tuple[debian.Package, ...] = (debian.OPENSSL,)
    if mode is Mode.NODE:
        packages = debian.NODE
    if images:
        packages += debian.IMAGES
    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(debian.ensure, packages, progress)
        binaries.ensure(upstreams, progress)
        installing.result()
    if mode is Mode.NODE and (lacking := kernel_problems()):
        raise PreflightError(lacking)


def check(mode: Mode, upstreams: tuple[Upstream, ...], port: int) -> list[str]:
    """Return what is wrong, of the things that can be told before anything is installed."""
    problems = []
    if not sys.platform.startswith("linux"):
        problems.append(f"The cluster runs on Linux, not on {sys.platform}: use a virtual machine.")
    if mode is Mode.NODE:
        problems += _node_problems()
    wanted = binaries.missing(upstreams)
    problems += _build_problems(wanted)
    problems += disk_problems(wanted, mode)
    if port:
        try:
            network.listen(port).close()
        except ClusterError as taken:
            problems.append(str(taken))
    return problems


def _node_problems() -> list[str]:
    problems = []
    if os.geteuid() != 0:
        problems.append(
            "A node needs root (for namespaces, mounts and cgroups of its own): use sudo, or "
            "--control-plane-only, which needs none and runs no pods."
        )
    absent = cgroups.missing_controllers()
    if absent:
        problems.append(
            f"The cgroup controllers {', '.join(absent)} are missing: the kubelet limits pods with "
            "them. Boot with `cgroup_enable=memory` on the kernel's command line, or give this "
            "container a writable /sys/fs/cgroup."
        )
    problems += [
        f"The cache {cache_root()} lies under {folder}, which a cluster covers: set XDG_CACHE_HOME "
        "to a folder elsewhere."
        for folder in COVERED
        if cache_root().is_relative_to(folder)
    ]
    return problems


def _build_problems(wanted: tuple[Upstream, ...]) -> list[str]:
    """Return what is wrong with Go, if it is needed because releases are out of reach."""
    if not wanted:
        return []
    problem = gobuild.go_problem(wanted)
    if problem is None:
        return []
    refusals = (reason for item in wanted if (reason := releases.refusal(item)))
    return [f"{problem} Downloads do not help: {reason}." for reason in islice(refusals, 1)]


def disk_problems(wanted: tuple[Upstream, ...], mode: Mode) -> list[str]:
    """Return what is wrong with the free space in the cache.

    Parameters
    ----------
    wanted
        What is still to be built; a cold build of everything takes most of what is needed.
    mode
        What is to run.
    """
    need = STATE_MEGABYTES + sum(upstream.disk_megabytes for upstream in wanted)
    if mode is Mode.NODE:
        need += STORE_MEGABYTES
    folder = cache_root()
    while not folder.exists():
        folder = folder.parent
    found = shutil.disk_usage(folder).free // 10**6
    if found >= need:
        return []
    short = f"{need:,} MB of free disk are needed in {cache_root()}, and {found:,} MB are there"
    remedy = "free some (`go clean -cache -modcache` helps), or set XDG_CACHE_HOME to another disk"
    return [f"{short}: {remedy}."]


def kernel_problems(probes: tuple[tuple[str, str, str], ...] = KERNEL_PROBES) -> list[str]:
    """Return what the kernel lacks; each feature is tried, in namespaces thrown away after.

    Parameters
    ----------
    probes
        For each feature its name, how to get it, and a shell script that fails without it.
    """
    problems = []
    for feature, remedy, script in probes:
        apart = ["unshare", "--mount", "--net", "--propagation", "private"]
        tried = subprocess.run(
            [*apart, "sh", "-c", script], capture_output=True, text=True, check=False
        )
        if tried.returncode != 0:
            said = tried.stderr.strip().splitlines()
            problems.append(
                f"The kernel has no {feature} here ({said[-1] if said else 'refused'}): it needs "
                f"{remedy}, and a container needs the capabilities for it."
            )
    return problems
