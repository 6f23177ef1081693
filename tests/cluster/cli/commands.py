"""What each command does."""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from tests.cluster import lifecycle, preflight, state
from tests.cluster.containerd import import_image
from tests.cluster.handle import Cluster, Mode, open_cluster
from tests.cluster.paths import ClusterPaths, links_folder
from tests.cluster.progress import Progress, duration


def up(options: argparse.Namespace) -> int:
    """Bring a cluster up, and say how to reach it."""
    wanted = lifecycle.Options(
        mode=_mode(options),
        gpus=options.gpus,
        controllers=options.controllers,
        port=options.port,
    )
    began = time.monotonic()
    with Progress() as progress:
        cluster = lifecycle.up(options.name, wanted, progress)
    print(f"Cluster {cluster.name} is up ({duration(time.monotonic() - began)}).")
    _introduce(cluster)
    return 0


def _introduce(cluster: Cluster) -> None:
    print(f"  export KUBECONFIG={cluster.kubeconfig}")
    print(f"  export PATH={links_folder()}:$PATH")
    if cluster.mode is Mode.NODE:
        print(f"  Prometheus: {cluster.prometheus_url}")
        print(f"  model volumes: {cluster.volumes}")
    print(f"  python -m tests.cluster down --name {cluster.name}")


def down(options: argparse.Namespace) -> int:
    """Take a cluster down."""
    with Progress() as progress:
        if not lifecycle.down(options.name, progress):
            print(f"There is no cluster named {options.name}.")
    return 0


def status(_options: argparse.Namespace) -> int:
    """Show all clusters."""
    text = state.describe()
    print(text or "No cluster is up: `python -m tests.cluster up` brings one up.")
    return 0


def kubectl(options: argparse.Namespace) -> int:
    """Run kubectl with the user's arguments."""
    arguments = options.arguments
    if arguments and arguments[0] == "--":
        arguments = arguments[1:]
    command = [*open_cluster(options.name).kubectl_command(), *arguments]
    return subprocess.run(command, check=False).returncode


def kubeconfig(options: argparse.Namespace) -> int:
    """Print the path of the kubeconfig."""
    open_cluster(options.name)
    print(ClusterPaths(options.name).kubeconfig)
    return 0


def shell(options: argparse.Namespace) -> int:
    """Run a shell."""
    return open_cluster(options.name).shell()


def import_(options: argparse.Namespace) -> int:
    """Bring an image in."""
    report = import_image(open_cluster(options.name), Path(options.layout), options.image)
    sent = f"{report.sent_bytes / 1e6:.1f} MB in {report.sent_blobs} blobs"
    print(f"{report.name} {report.digest}: {sent}, {duration(report.seconds)}")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Get packages and programs."""
    began = time.monotonic()
    with Progress() as progress:
        preflight.prepare(_mode(options), progress, images=options.images)
    print(f"Ready ({duration(time.monotonic() - began)}). Programs are in {links_folder()}.")
    return 0


def _mode(options: argparse.Namespace) -> Mode:
    return Mode.CONTROL_PLANE if options.control_plane_only else Mode.NODE
