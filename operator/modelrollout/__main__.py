"""Command line: ``python -m modelrollout run`` and ``python -m modelrollout crd``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelrollout.api.schema import crd_yaml
from modelrollout.errors import RolloutError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "crd":
        sys.stdout.write(crd_yaml())
        return 0
    # Imported late: printing the CRD needs neither a cluster nor its clients.
    from modelrollout.app import run  # noqa: PLC0415

    try:
        run(arguments.config, namespaces=arguments.namespace, liveness=arguments.liveness)
    except RolloutError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelrollout", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("crd", help="print the CustomResourceDefinition")
    run = commands.add_parser("run", help="run the operator")
    run.add_argument("--config", type=Path, required=True, help="the administrator's YAML file")
    run.add_argument(
        "--namespace",
        action="append",
        default=[],
        help="watch this namespace only; may be given several times (default: all)",
    )
    run.add_argument(
        "--liveness", default="http://0.0.0.0:8080/healthz", help="address of the liveness probe"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
