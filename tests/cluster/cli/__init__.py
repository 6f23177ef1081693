"""The command line of the test cluster."""

from __future__ import annotations

import argparse
import sys

from tests.cluster.cli import commands
from tests.cluster.errors import ClusterError

DEFAULT_NAME = "demo"


def main(arguments: list[str]) -> int:
    """Run a command, and return the exit status.

    Parameters
    ----------
    arguments
        The command line after the program's name.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was begun has been ended.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description="A real single-node Kubernetes on this machine, in namespaces of its own.",
    )
    known = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = known.add_parser(name, help=text, description=text)
        command.set_defaults(run=getattr(commands, name.replace("import", "import_")))
        if name not in {"prepare", "status"}:
            command.add_argument(
                "--name", default=DEFAULT_NAME, help=f"which cluster ({DEFAULT_NAME})"
            )
        return command

    up = add("up", "bring a cluster up, or do nothing when it is up")
    _add_mode(up)
    up.add_argument("--gpus", type=int, default=4, help="GPUs the node says it has (4)")
    up.add_argument("--port", type=int, default=0, help="loopback port of the API (a free one)")
    add("down", "take a cluster down; nothing of it stays")
    add("status", "show all clusters, their addresses, programs and memory")
    kubectl = add("kubectl", "run kubectl on a cluster: kubectl -- get pods")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    add("kubeconfig", "print the path of a cluster's kubeconfig")
    add("shell", "run a shell with KUBECONFIG and PATH set")
    image = add("import", "bring an OCI image layout into a cluster")
    image.add_argument("layout", help="folder of the layout")
    image.add_argument("image", help="full name, such as localhost/modelrollout/inference:dev")
    prepare = add("prepare", "get packages and programs, and start nothing")
    _add_mode(prepare)
    prepare.add_argument("--images", action="store_true", help="also what builds images")
    return parser


def _add_mode(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--control-plane-only",
        action="store_true",
        help="etcd and kube-apiserver on loopback ports: no root, no node",
    )
    command.add_argument(
        "--controllers",
        action="store_true",
        help="with --control-plane-only: kube-controller-manager, too",
    )
