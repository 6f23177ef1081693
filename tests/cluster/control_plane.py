"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster import network, pki
from tests.cluster.binaries import path_of
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Program

ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True)
class Endpoints:
    """Where the control plane listens.

    Attributes
    ----------
    bind
        Address the API server binds.
    advertise
        Address it gives to pods; empty where there are no pods.
    api_port, etcd_client_port, etcd_peer_port
        Ports.
    """

    bind: str
    advertise: str
    api_port: int
    etcd_client_port: int
    etcd_peer_port: int

    @property
    def api_url(self) -> str:
        """The API server as its neighbours in the namespace reach it."""
        return f"https://{network.LOOPBACK}:{self.api_port}"


# Inside namespaces of its own a cluster can have the usual ports.
IN_NAMESPACE = Endpoints(
    bind="0.0.0.0",  # noqa: S104 - all there is are the namespace's own addresses
    advertise=network.NODE_ADDRESS,
    api_port=network.API_PORT,
    etcd_client_port=network.ETCD_CLIENT_PORT,
    etcd_peer_port=network.ETCD_PEER_PORT,
)


def on_loopback(api_port: int) -> Endpoints:
    """Return endpoints on free loopback ports of the host, for a control plane without root."""
    client, peer = network.free_ports(2)
    return Endpoints(network.LOOPBACK, "", api_port, client, peer)


def programs(paths: ClusterPaths, endpoints: Endpoints, *, controllers: bool) -> list[Program]:
    """Return the control plane's programs, after writing their kubeconfigs.

    Parameters
    ----------
    paths
        Files of the cluster; keys and certificates are there already.
    endpoints
        Where it listens.
    controllers
        With kube-controller-manager.
    """
    found = [_etcd(paths, endpoints), _api_server(paths, endpoints, controllers=controllers)]
    if controllers:
        found.append(_controller_manager(paths, endpoints))
    return found


def _etcd(paths: ClusterPaths, endpoints: Endpoints) -> Program:
    client = f"http://{network.LOOPBACK}:{endpoints.etcd_client_port}"
    peer = f"http://{network.LOOPBACK}:{endpoints.etcd_peer_port}"
    argv = [
        str(path_of("etcd")),
        f"--data-dir={paths.root / 'etcd'}",
        "--name=default",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # The data dies with the cluster: waiting for the disk would only cost time.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    return Program("etcd", argv, ready_url=f"{client}/health")


def _api_server(paths: ClusterPaths, endpoints: Endpoints, *, controllers: bool) -> Program:
    keys = paths.pki
    argv = [
        str(path_of("kube-apiserver")),
        f"--etcd-servers=http://{network.LOOPBACK}:{endpoints.etcd_client_port}",
        f"--bind-address={endpoints.bind}",
        f"--secure-port={endpoints.api_port}",
        f"--cert-dir={keys}",
        f"--tls-cert-file={keys / 'apiserver.crt'}",
        f"--tls-private-key-file={keys / 'apiserver.key'}",
        f"--client-ca-file={keys / 'ca.crt'}",
        f"--kubelet-client-certificate={keys / 'admin.crt'}",
        f"--kubelet-client-key={keys / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={keys / 'service-account.key'}",
        f"--service-account-signing-key-file={keys / 'service-account.key'}",
        f"--service-cluster-ip-range={network.SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--enable-admission-plugins=NodeRestriction",
    ]
    if endpoints.advertise:
        argv.append(f"--advertise-address={endpoints.advertise}")
    else:
        # A loopback address is refused as an endpoint of the service `kubernetes`.
        argv += [f"--advertise-address={network.LOOPBACK}", "--endpoint-reconciler-type=none"]
    if not controllers:
        # Nobody makes the service accounts that this plug-in would wait for.
        argv.append("--disable-admission-plugins=ServiceAccount")
    return Program(
        "kube-apiserver",
        argv,
        after=["etcd"],
        ready_url=f"{endpoints.api_url}/readyz",
        ca=str(keys / "ca.crt"),
    )


def _controller_manager(paths: ClusterPaths, endpoints: Endpoints) -> Program:
    kubeconfig = paths.config / "controller-manager.kubeconfig"
    pki.write_kubeconfig(
        kubeconfig, paths.pki, pki.CONTROLLER_MANAGER, endpoints.api_url, paths.name
    )
    argv = [
        str(path_of("kube-controller-manager")),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={paths.pki / 'service-account.key'}",
        f"--root-ca-file={paths.pki / 'ca.crt'}",
    ]
    return Program("kube-controller-manager", argv, after=["kube-apiserver"])


def scheduler(paths: ClusterPaths, endpoints: Endpoints) -> Program:
    """Return kube-scheduler, after writing its kubeconfig."""
    kubeconfig = paths.config / "scheduler.kubeconfig"
    pki.write_kubeconfig(kubeconfig, paths.pki, pki.SCHEDULER, endpoints.api_url, paths.name)
    argv = [
        str(path_of("kube-scheduler")),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
    ]
    return Program("kube-scheduler", argv, after=["kube-apiserver"])
