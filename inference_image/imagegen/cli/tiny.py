"""``imagegen make-tiny``."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagegen.cli.values import Commands

__all__ = ["add", "run"]

_ARCHITECTURES = ("flux", "latent-upscaler", "sd", "sd3", "sdxl", "upscaler")
_SCALES = ("small", "tiny")


def add(commands: Commands) -> None:
    """Add the command."""
    tiny = commands.add_parser("make-tiny", help="make a tiny pipeline with random weights")
    tiny.add_argument("--architecture", choices=_ARCHITECTURES, default="sd")
    tiny.add_argument("--seed", type=int, default=0, help="seed of the weights")
    tiny.add_argument("--scale", choices=_SCALES, default="tiny")
    tiny.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
    from imagegen.miniature.tiny import make_tiny  # noqa: PLC0415

    make_tiny(arguments.architecture, seed=arguments.seed, out=arguments.out, scale=arguments.scale)
    print(f"{arguments.out}: tiny {arguments.architecture} pipeline, seed {arguments.seed}")
    return 0
