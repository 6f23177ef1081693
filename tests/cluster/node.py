"""kubelet, kube-proxy and the pods' network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster import network, pki
from tests.cluster.binaries import path_of
from tests.cluster.containerd import SOCKET
from tests.cluster.control_plane import Endpoints
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Program

CNI_PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")


def write_cni_config(paths: ClusterPaths) -> Path:
    """Write the pods' network: a bridge without masquerading, as nothing is to leave it."""
    plugin = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": network.POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni/addresses",
        },
    }
    folder = paths.config / "cni"
    folder.mkdir(exist_ok=True)
    document = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
    (folder / "10-pods.conflist").write_text(json.dumps(document, indent=1))
    return folder


def kubelet(paths: ClusterPaths, endpoints: Endpoints) -> Program:
    """Return the kubelet, after writing its configuration."""
    identity = pki.kubelet_identity(network.NODE_NAME)
    kubeconfig = paths.config / "kubelet.kubeconfig"
    pki.write_kubeconfig(kubeconfig, paths.pki, identity, endpoints.api_url, paths.name)
    resolv = paths.config / "resolv.conf"
    # The pods that use the node's own resolver (CoreDNS) have nobody to ask outside.
    resolv.write_text("")
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "0s"},
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "address": network.NODE_ADDRESS,
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [network.DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "2s",
        "podLogsDir": str(paths.root / "pod-logs"),
        "resolvConf": str(resolv),
        "rotateCertificates": False,
        "serializeImagePulls": False,
        "syncFrequency": "10s",
        "volumePluginDir": "/run/kubelet-volume-plugins",
    }
    file = paths.config / "kubelet.json"
    file.write_text(json.dumps(configuration, indent=1))
    argv = [
        str(path_of("kubelet")),
        f"--config={file}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={paths.root / 'kubelet'}",
        f"--cert-dir={paths.pki}",
        f"--hostname-override={network.NODE_NAME}",
        f"--node-ip={network.NODE_ADDRESS}",
    ]
    return Program("kubelet", argv, after=["kube-apiserver", "containerd"])


def proxy(paths: ClusterPaths, endpoints: Endpoints) -> Program:
    """Return kube-proxy, after writing its configuration."""
    kubeconfig = paths.config / "proxy.kubeconfig"
    pki.write_kubeconfig(kubeconfig, paths.pki, pki.PROXY, endpoints.api_url, paths.name)
    configuration: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": network.POD_RANGE,
        "hostnameOverride": network.NODE_NAME,
        "bindAddress": network.NODE_ADDRESS,
        "nodeIPOverride": [network.NODE_ADDRESS],
        # Limits of connection tracking are the machine's, and not for us to change.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nftables": {"minSyncPeriod": "100ms"},
    }
    file = paths.config / "proxy.json"
    file.write_text(json.dumps(configuration, indent=1))
    argv = [str(path_of("kube-proxy")), f"--config={file}"]
    return Program("kube-proxy", argv, after=["kube-apiserver"])
