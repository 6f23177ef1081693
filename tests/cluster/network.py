"""Addresses inside a cluster; they exist in its own network namespace only."""

from __future__ import annotations

import socket

from tests.cluster.errors import ClusterError

LOOPBACK = "127.0.0.1"
NODE_NAME = "node"
NODE_BRIDGE = "up0"
NODE_ADDRESS = "10.250.0.1"
NODE_PREFIX = 24
# Programs want a default route; this neighbour has a hardware address and never answers.
SILENT_NEIGHBOUR = "10.250.0.254"
SILENT_HARDWARE_ADDRESS = "02:00:00:00:00:fe"
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
PROMETHEUS_ADDRESS = "10.96.0.90"
PROMETHEUS_PORT = 9090
API_PORT = 6443
ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380


def listen(port: int = 0) -> socket.socket:
    """Return a socket that listens on the host's loopback.

    Parameters
    ----------
    port
        The port wanted, or 0 for any free one.

    Raises
    ------
    ClusterError
        The port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise ClusterError(
            f"Port {port} on {LOOPBACK} is taken: choose another with --port, or leave it out "
            "and a free one is found."
        ) from error
    listener.listen(256)
    return listener


def free_ports(count: int) -> list[int]:
    """Return as many ports that were free a moment ago, for programs that bind by themselves."""
    sockets = [listen() for _ in range(count)]
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports
