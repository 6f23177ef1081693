"""Bringing a cluster up and down."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tests.cluster import (
    addons,
    cgroups,
    containerd,
    control_plane,
    image_store,
    namespaces,
    network,
    node,
    pki,
    preflight,
)
from tests.cluster.errors import ClusterError
from tests.cluster.handle import Cluster, Mode, Record, find_cluster
from tests.cluster.network import PROMETHEUS_ADDRESS, PROMETHEUS_PORT
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Plan, Program
from tests.cluster.processes import end, locked, start_time, wait_for
from tests.cluster.progress import Progress

READY_SECONDS = 90.0
API_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """What a cluster is to be like.

    Attributes
    ----------
    mode
        Control plane only, or with a node.
    gpus
        How many GPUs the node says it has.
    controllers
        Run kube-controller-manager in control-plane mode, too.
    port
        Port of the API server on the host's loopback; 0 for a free one.
    """

    mode: Mode = Mode.NODE
    gpus: int = 4
    controllers: bool = False
    port: int = 0


def up(name: str, options: Options, progress: Progress) -> Cluster:
    """Bring a cluster up, or return it when it is up already.

    What a killed run of the same name left behind is removed first.

    Raises
    ------
    PreflightError
        The machine lacks something; nothing was started.
    ClusterError
        It does not come up; what was started has been ended, and the logs' ends are shown.
    """
    paths = ClusterPaths(name)
    with locked(paths.lock, busy=f"The cluster {name} is being brought up or down by somebody."):
        running = find_cluster(name)
        if running is not None:
            if running.mode is not options.mode:
                raise ClusterError(
                    f"The cluster {name} is up as {running.mode}: take it down first, "
                    "or choose another name with --name."
                )
            return running
        remove(name)
        preflight.prepare(options.mode, progress, port=options.port)
        try:
            if options.mode is Mode.NODE:
                return _up_node(paths, options, progress)
            return _up_control_plane(paths, options, progress)
        except BaseException as error:
            report = _keep_logs(paths) if isinstance(error, ClusterError) else ""
            remove(name)
            if report:
                raise ClusterError(f"{error}\n{report}") from error
            raise


def down(name: str, progress: Progress) -> bool:
    """Take a cluster down; nothing of it stays outside the cache. False when there was none.

    Raises
    ------
    ClusterError
        Something of it cannot be ended or removed.
    """
    paths = ClusterPaths(name)
    with locked(paths.lock, busy=f"The cluster {name} is being brought up or down by somebody."):
        if not paths.root.exists() and not _has_cgroups(name):
            return False
        with progress.step(f"cluster {name}: down"):
            remove(name)
        return True


def remove(name: str) -> None:
    """End and remove whatever there is of a cluster."""
    paths = ClusterPaths(name)
    record = Record.read(paths.record)
    if record is not None:
        inner = namespaces.inner_processes(record.pid) if record.alive else []
        # The first process inside takes everything with it, and is buried by the one outside.
        for pid, started in [*inner, (record.pid, record.started)]:
            end(pid, started)
    if _has_cgroups(name):
        cgroups.remove(name)
    if paths.root.exists():
        shutil.rmtree(paths.root)


def _has_cgroups(name: str) -> bool:
    return bool(cgroups.of_cluster(name))


def _up_control_plane(paths: ClusterPaths, options: Options, progress: Progress) -> Cluster:
    paths.create()
    with progress.step("control plane", key="control-plane", estimate=6) as step:
        port = options.port or network.free_ports(1)[0]
        endpoints = control_plane.on_loopback(port)
        server = pki.api_server_identity([network.LOOPBACK, network.API_SERVICE_ADDRESS])
        pki.create(paths.pki, [pki.ADMIN, pki.CONTROLLER_MANAGER, server])
        programs = control_plane.programs(paths, endpoints, controllers=options.controllers)
        _plan(paths, [], programs).write(paths.plan)
        pid = namespaces.start_supervisor(paths, isolated=False)
        record = _recorded(paths, Record(Mode.CONTROL_PLANE, pid, 0, port))
        cluster = _opened(paths, record)
        step.say("waiting for the API server")
        _wait_for_programs(paths, record, ["kube-apiserver"], API_SECONDS)
    return _complete(paths, cluster)


def _up_node(paths: ClusterPaths, options: Options, progress: Progress) -> Cluster:
    paths.create()
    with progress.step("control plane", key="node-control-plane", estimate=7) as step:
        store, lock = image_store.claim(paths)
        cgroups.create(paths.name)
        with network.listen(options.port) as api, network.listen() as prometheus:
            record = _start_node(paths, store, lock, (api, prometheus))
        if lock is not None:
            lock.close()
        cluster = _opened(paths, record)
        with ThreadPoolExecutor(1) as pool:
            importing = pool.submit(_import_images, cluster, paths, record, progress)
            step.say("waiting for the API server")
            _wait_for_programs(paths, record, ["kube-apiserver"], API_SECONDS)
            addons.apply(cluster)
            importing.result()
    with progress.step("node, DNS and Prometheus", key="node", estimate=12) as step:
        step.say("registering")
        addons.wait_until_registered(cluster, READY_SECONDS)
        addons.advertise_gpus(cluster, options.gpus)
        step.say("starting pods")
        addons.wait_until_ready(cluster, options.gpus, READY_SECONDS)
    return _complete(paths, cluster)


def _start_node(
    paths: ClusterPaths,
    store: Path,
    lock: IO[str] | None,
    listeners: tuple[socket.socket, socket.socket],
) -> Record:
    endpoints = control_plane.IN_NAMESPACE
    addresses = [network.LOOPBACK, network.NODE_ADDRESS, network.API_SERVICE_ADDRESS]
    kubelet = pki.kubelet_identity(network.NODE_NAME)
    server = pki.api_server_identity(addresses)
    everybody = [pki.ADMIN, pki.CONTROLLER_MANAGER, pki.SCHEDULER, pki.PROXY, kubelet, server]
    pki.create(paths.pki, everybody)
    programs = [
        *control_plane.programs(paths, endpoints, controllers=True),
        control_plane.scheduler(paths, endpoints),
        containerd.program(paths, store, node.write_cni_config(paths), addons.image_of("pause")),
        node.kubelet(paths, endpoints),
        node.proxy(paths, endpoints),
        _relay(listeners),
    ]
    _plan(paths, namespaces.setup_commands(paths), programs).write(paths.plan)
    held = [listener.fileno() for listener in listeners]
    if lock is not None:
        held.append(lock.fileno())
    pid = namespaces.start_supervisor(paths, isolated=True, descriptors=tuple(held))
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    return _recorded(paths, Record(Mode.NODE, pid, 0, ports[0], ports[1]))


def _relay(listeners: tuple[socket.socket, socket.socket]) -> Program:
    targets = (
        f"{network.LOOPBACK}:{network.API_PORT}",
        f"{PROMETHEUS_ADDRESS}:{PROMETHEUS_PORT}",
    )
    pairs = [f"{s.fileno()}={target}" for s, target in zip(listeners, targets, strict=True)]
    return Program("relay", [sys.executable, "-m", "tests.cluster.relay", *pairs])


def _import_images(
    cluster: Cluster, paths: ClusterPaths, record: Record, progress: Progress
) -> None:
    _wait_for_programs(paths, record, ["containerd"], API_SECONDS)
    with progress.step("images", key="images", estimate=1):
        addons.import_images(cluster)


def _plan(paths: ClusterPaths, setup: list[list[str]], programs: list[Program]) -> Plan:
    return Plan(setup, programs, str(paths.logs), str(paths.root / "programs.json"))


def _recorded(paths: ClusterPaths, record: Record) -> Record:
    known = replace(record, started=start_time(record.pid) or 0)
    known.write(paths.record)
    return known


def _opened(paths: ClusterPaths, record: Record) -> Cluster:
    url = f"https://{network.LOOPBACK}:{record.api_port}"
    name = f"modelrollout-{paths.name}"
    pki.write_kubeconfig(paths.kubeconfig, paths.pki, pki.ADMIN, url, name)
    return Cluster(paths.name, record.mode, paths.kubeconfig, record)


def _complete(paths: ClusterPaths, cluster: Cluster) -> Cluster:
    if cluster.record is None:
        raise ClusterError(f"The cluster {cluster.name} is not ours.")
    record = replace(cluster.record, complete=True)
    record.write(paths.record)
    return replace(cluster, record=record)


def _wait_for_programs(
    paths: ClusterPaths, record: Record, names: list[str], timeout: float
) -> None:
    def ready() -> bool:
        if not record.alive:
            raise ClusterError("The cluster's supervisor ended.")
        state = json.loads((paths.root / "programs.json").read_text())
        if state["failed"]:
            raise ClusterError(f"Setting up the cluster's namespaces failed: {state['failed']}")
        return all(state["programs"][name]["ready"] for name in names)

    wait_for(ready, what=f"The start of {' and '.join(names)}", timeout=timeout, every=0.05)


def _keep_logs(paths: ClusterPaths) -> str:
    """Put the logs where they outlive the cluster; return the ends of those in trouble."""
    shutil.rmtree(paths.failed_logs, ignore_errors=True)
    shutil.copytree(paths.logs, paths.failed_logs)
    try:
        programs = json.loads((paths.root / "programs.json").read_text())["programs"]
    except (OSError, ValueError, KeyError):
        programs = {}
    troubled = [name for name, s in programs.items() if not s["ready"] or s["starts"] > 1]
    parts = []
    for name in ["supervisor", *troubled]:
        log = paths.logs / f"{name}.log"
        if log.exists() and (lines := log.read_text(errors="replace").splitlines()):
            parts.append("\n".join([f"--- {name}.log ends:", *lines[-8:]]))
    return "\n".join([*parts, f"All logs are in {paths.failed_logs}."])
