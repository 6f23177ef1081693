"""The command line: ``imagegen serve``, ``probe``, ``digest``, ``make-tiny`` and ``miniature``.

What a command needs is imported when it runs, so that the probe starts without torch.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from imagegen.cli import digest, miniature, probe, serve, tiny

__all__ = ["main"]

_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="imagegen", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (serve, probe, digest, tiny, miniature):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    level = os.environ.get("IMAGEGEN_LOG_LEVEL", "INFO").upper()
    if level not in _LOG_LEVELS:
        parser.error(f"IMAGEGEN_LOG_LEVEL must be one of {', '.join(_LOG_LEVELS)}, not {level!r}")
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if arguments.command == "serve":
        return serve.run(parser, arguments)
    if arguments.command == "probe":
        return probe.run(arguments)
    if arguments.command == "digest":
        return digest.run(arguments)
    if arguments.command == "miniature":
        return miniature.run(arguments)
    return tiny.run(arguments)
