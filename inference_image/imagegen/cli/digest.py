"""``imagegen digest``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagegen.cli.values import Commands
from imagegen.contract import ExitCode
from imagegen.engines.digest import folder_digest
from imagegen.engines.folder import list_files
from imagegen.errors import StartupError

__all__ = ["add", "run"]


def add(commands: Commands) -> None:
    """Add the command."""
    digest = commands.add_parser("digest", help="print the digest that pins a model folder")
    digest.add_argument("folder", type=Path, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
    try:
        print(folder_digest(arguments.folder, list_files(arguments.folder)))
    except (StartupError, OSError) as error:
        print(f"imagegen digest: {error}", file=sys.stderr)
        return ExitCode.STARTUP_FAILED
    return 0
