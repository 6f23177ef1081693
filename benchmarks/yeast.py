"""Published simulation of ten sequential tests, repeated with the engine's stopping line.

Kurennoy et al., "YEAST: Yet Another Sequential Test" (NeurIPS 2025, arXiv
2406.16523), main experiment: 500 pairs of normal values, a look after each pair, one-sided 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.boundaries import score_line
from benchmarks.study import Scale, Study, chunks, rates, seeded
from benchmarks.tables import Table, View, markdown

__all__ = ["PUBLISHED", "STUDY", "boundaries", "reject_rates"]

PAIRS: Final = 500
ALPHA: Final = 0.05
EFFECTS: Final = (0.0, 0.1, 0.2, 0.3)
_RUNS: Final = 100_000
_CHUNK: Final = 5000

PUBLISHED: Final[dict[str, tuple[float, ...]]] = {
    "engine": (0.047, 0.439, 0.918, 0.998),
    "engine, plan 10 % too long": (0.037, 0.398, 0.901, 0.998),
    "engine, plan 20 % too long": (0.030, 0.362, 0.884, 0.997),
    "engine, plan 10 % too short": (0.059, 0.483, 0.933, 0.999),
    "engine, plan 20 % too short": (0.074, 0.530, 0.947, 0.999),
    "mSPRT, phi 100": (0.016, 0.216, 0.756, 0.987),
    "mSPRT, phi 25": (0.027, 0.235, 0.757, 0.986),
    "mSPRT, phi 11": (0.030, 0.220, 0.732, 0.982),
    "GAVI 250": (0.024, 0.237, 0.765, 0.987),
    "GAVI 500": (0.018, 0.226, 0.762, 0.987),
    "GAVI 750": (0.014, 0.207, 0.748, 0.986),
    "Bonferroni, 500 looks": (0.003, 0.044, 0.398, 0.896),
}
"""Reject rates at effects of 0, .1, .2 and .3 standard deviations, from the authors' table."""

_PLANS: Final = {
    "engine": 500,
    "engine, plan 10 % too long": 550,
    "engine, plan 20 % too long": 600,
    "engine, plan 10 % too short": 450,
    "engine, plan 20 % too short": 400,
}


def boundaries() -> dict[str, NDArray[np.float64]]:
    """Return the cumulative difference from which each test rejects, after 1 to 500 pairs.

    A difference has a variance of 2. The tests with a mixture are one-sided by taking the
    two-sided ones at twice the level.
    """
    n = np.arange(1, PAIRS + 1)
    found = {name: score_line(PAIRS, planned, ALPHA) for name, planned in _PLANS.items()}
    mixture = _mixture(n)
    found["mSPRT, phi 100"] = mixture(100.0)
    found["mSPRT, phi 25"] = mixture(25.0)
    found["mSPRT, phi 11"] = mixture(1 / 0.3**2)
    two_sided = 2 * ALPHA
    tuned = 1 - 2 * math.log(two_sided)
    for at in (250, 500, 750):
        found[f"GAVI {at}"] = mixture(at / (math.log(tuned) + tuned - 1))
    found["Bonferroni, 500 looks"] = np.sqrt(2 * n) * ndtri(1 - ALPHA / PAIRS)
    found["z-test, each look"] = np.sqrt(2 * n) * ndtri(1 - ALPHA)
    return found


def reject_rates(runs: int, scale: Scale) -> dict[str, list[float]]:
    """Simulate; return the reject rate of each test at each effect."""
    lines = boundaries()
    jobs = [
        (effect, index, size, lines)
        for effect in range(len(EFFECTS))
        for index, size in enumerate(chunks(runs, _CHUNK))
    ]
    counts = {name: [0] * len(EFFECTS) for name in lines}
    for (effect, *_), rejected in zip(jobs, scale.map(_rejections, jobs), strict=True):
        for name, count in rejected.items():
            counts[name][effect] += count
    return {name: [count / runs for count in of] for name, of in counts.items()}


def _mixture(n: NDArray[np.int64]) -> Callable[[float], NDArray[np.float64]]:
    """Return the boundary of Robbins' normal mixture by its parameter (in observations).

    GAVI and this form of the mSPRT differ in how they choose the parameter.
    """
    two_sided = 2 * ALPHA

    def boundary(rho: float) -> NDArray[np.float64]:
        return np.asarray(
            np.sqrt(2 * (n + rho) * np.log((n + rho) / (rho * two_sided**2))), dtype=np.float64
        )

    return boundary


def _rejections(job: tuple[int, int, int, dict[str, NDArray[np.float64]]]) -> dict[str, int]:
    effect, index, size, lines = job
    random = seeded(1, effect, index)
    sums = random.normal(EFFECTS[effect], math.sqrt(2), (size, PAIRS))
    np.cumsum(sums, axis=1, out=sums)
    return {name: int((sums > line).any(axis=1).sum()) for name, line in lines.items()}


def _run(scale: Scale) -> list[Table]:
    measured = reject_rates(scale.runs(_RUNS), scale)
    rows = [
        (name, effect, rate, PUBLISHED[name][at] if name in PUBLISHED else None)
        for name, of in measured.items()
        for at, (effect, rate) in enumerate(zip(EFFECTS, of, strict=True))
    ]
    return [Table("yeast", ("test", "effect", "reject_rate", "published"), rows)]


def _view(table: Table) -> str:
    names = list(dict.fromkeys(str(name) for name in table.column("test")))
    shown = []
    for name in names:
        rows = table.where(test=name)
        shown.append(
            (
                name,
                rates(row["reject_rate"] for row in rows),
                rates(row["published"] for row in rows) if name in PUBLISHED else "-",
            )
        )
    return markdown(("test", "measured", "published"), shown)


STUDY: Final = Study("yeast", _run, (View("yeast", "yeast", _view),))
