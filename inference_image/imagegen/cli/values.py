"""What the text of an option must be."""

from __future__ import annotations

import argparse
import math
from typing import Final, TypeAlias

from imagegen import contract

__all__ = ["Commands", "checks", "edges", "finite", "port", "positive", "rate"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


_LAST_PORT: Final = 65535


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def port(text: str) -> int:
    """Read the number of a port."""
    if not text.isdecimal() or not 1 <= int(text) <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_LAST_PORT}")
    return int(text)


def finite(text: str) -> float:
    """Read a number of 0 or more."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError("must be a number, 0 or more")
    return value


def rate(text: str) -> float:
    """Read a number above 0."""
    value = finite(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def edges(text: str) -> tuple[float, ...]:
    """Read limits in seconds, apart by commas, and add them to the default bucket edges."""
    try:
        return contract.latency_edges(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def checks(text: str) -> frozenset[str]:
    """Read names of the watchdog's checks, apart by commas; ``none`` for no checks."""
    names = frozenset(part.strip() for part in text.split(",")) - {"none"}
    unknown = sorted(names - set(contract.WATCHDOG_CHECKS))
    if unknown:
        known = ", ".join(contract.WATCHDOG_CHECKS)
        raise argparse.ArgumentTypeError(f"no check {unknown[0]!r}; there are: {known}")
    return names
