"""What a study is, and how large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from benchmarks.tables import Table, View

__all__ = ["Scale", "Study", "chunks", "percent", "rates", "seeded"]

_SEED: Final = 20261121
"""Of all simulations."""

_QUICK: Final = 100
_FEWEST: Final = 20

_SMALLEST: Final = 0.1
"""Percent; what is less is not told apart."""

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Scale:
    """How many runs are simulated, and by whom."""

    pool: Executor
    quick: bool = False

    def runs(self, full: int) -> int:
        """Return the number of runs of a cell that has so many in full."""
        return max(_FEWEST, full // _QUICK) if self.quick else full

    def map(self, work: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> list[_Result]:
        """Do the jobs in parallel; the results are in their order."""
        return list(self.pool.map(work, jobs))


@dataclass(frozen=True, slots=True)
class Study:
    """A question, its simulation, and how the answer is shown."""

    name: str
    run: Callable[[Scale], list[Table]]
    views: Sequence[View]


def seeded(*key: int) -> np.random.Generator:
    """Return the random numbers of one part of one study: the same in each run."""
    return np.random.default_rng([_SEED, *key])


def chunks(runs: int, size: int) -> list[int]:
    """Split runs into parts of at most a size."""
    return [min(size, runs - begin) for begin in range(0, runs, size)]


def percent(value: float | str | None) -> str:
    """Show a probability in percent, with a digit after the point near both ends."""
    if not isinstance(value, int | float):
        return "-"
    shown = 100 * value
    if shown in {0, 100}:
        return f"{shown:.0f}"
    if shown < _SMALLEST:
        return f"<{_SMALLEST}"
    if shown > 100 - _SMALLEST:
        return f">{100 - _SMALLEST}"
    return f"{shown:.0f}" if 10 <= shown <= 90 else f"{shown:.1f}"


def rates(values: Iterable[float | str | None]) -> str:
    """Show probabilities as the published tables do: .047 / .439."""
    return " / ".join(
        f"{value:.3f}".removeprefix("0") if isinstance(value, int | float) else "-"
        for value in values
    )
