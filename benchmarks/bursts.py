"""Slow requests that come in bursts: how far the errors of a gate on a share move."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaln, chdtri, ndtri, stdtrit

from benchmarks.boundaries import first_crossing, share_boundaries
from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from modelrollout.gates.blocks import BLOCK_REQUESTS

__all__ = ["LENGTHS", "SHARES", "STUDY", "design_effects", "draw", "verdicts"]

LIMIT: Final = 0.05
ALPHA: Final = 0.05
LENGTHS: Final = (1, 2, 4, 8, 16)
"""Mean number of slow requests that follow each other; 1 stands for independent ones."""

SHARES: Final = (0.01, LIMIT, 0.10)
HORIZONS: Final = (120, 300, 600)
_RUNS: Final = 2000
_CHUNK: Final = 500
_FEWEST_BLOCKS: Final = 3
_CHANCE: Final = 0.05
_USUAL: Final = 0.975

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def draw(share: float, length: int, shape: tuple[int, int], random: np.random.Generator) -> Flags:
    """Draw which requests are slow: a share of them, in runs of a mean length.

    A Markov chain with two states; a length of 1 is drawn independently.
    """
    uniform = random.random(shape)
    if length == 1:
        return uniform < share
    slow = np.empty(shape, dtype=np.bool_)
    slow[:, 0] = uniform[:, 0] < share
    begins, ends = share / (1 - share) / length, 1 / length
    for at in range(1, shape[1]):
        slow[:, at] = np.where(slow[:, at - 1], uniform[:, at] >= ends, uniform[:, at] < begins)
    return slow


def design_effects(slow: Flags) -> Floats:
    """Return what `modelrollout.gates.blocks` estimates after each request, for many courses."""
    runs, n = slow.shape
    sizes = np.arange(1, n + 1)
    share = np.cumsum(slow, axis=1) / sizes
    variance = share * (1 - share)
    full = n // BLOCK_REQUESTS
    bad = slow[:, : full * BLOCK_REQUESTS].reshape(runs, full, BLOCK_REQUESTS).sum(axis=2)
    zeros = np.zeros((runs, 1))
    total = np.concatenate([zeros, np.cumsum(bad, axis=1)], axis=1)
    squares = np.concatenate([zeros, np.cumsum(bad**2, axis=1)], axis=1) / BLOCK_REQUESTS
    blocks = sizes // BLOCK_REQUESTS
    centred = squares - total**2 / np.maximum(1, np.arange(full + 1) * BLOCK_REQUESTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.maximum(0.0, centred[:, blocks]) / variance
    freedom = np.maximum(1, blocks - 1)
    usable = (blocks >= _FEWEST_BLOCKS) & (variance > 0)
    beyond = usable & (between > chdtri(freedom, _CHANCE))
    few = (stdtrit(freedom, _USUAL) / ndtri(_USUAL)) ** 2
    return np.where(beyond, np.maximum(1.0, between / freedom * few), 1.0)


def verdicts(bad: Integers, n: Integers, effect: Floats) -> tuple[Flags, Flags]:
    """Return where `proportion` passes and fails, for arrays of counts and design effects.

    Bursts that were seen count against Fail only: those to come cannot be seen.
    """
    bad, n = np.broadcast_arrays(bad, n)
    passing, failing = share_boundaries(LIMIT, int(n.max()), ALPHA, ALPHA)
    fails = bad >= failing[n]
    fewer = effect > 1
    evidence = _log_e_fail(bad[fewer] / effect[fewer], n[fewer] / effect[fewer])
    fails[fewer] = evidence >= -np.log(ALPHA)
    return (bad <= passing[n]) & ~fails, fails


def _log_e_fail(k: Floats, n: Floats) -> Floats:
    """Return the log of the evidence that the share is above the limit, as the engine does."""
    a = b = 0.5
    with np.errstate(divide="ignore"):
        inside = np.log(betaincc(a + k, b + n - k, LIMIT)) - np.log(betaincc(a, b, LIMIT))
    mixed = betaln(a + k, b + n - k) - betaln(a, b)
    return np.asarray(mixed + inside - k * np.log(LIMIT) - (n - k) * np.log1p(-LIMIT))


_CASES: Final = tuple((corrected, most) for corrected in (0, 1) for most in HORIZONS)


def _job(job: tuple[float, int, int, int]) -> list[tuple[int, int]]:
    """Return how many passed and failed, for each of the cases."""
    share, length, index, size = job
    random = seeded(6, SHARES.index(share), LENGTHS.index(length), index)
    slow = draw(share, length, (size, HORIZONS[-1]), random)
    bad = np.cumsum(slow, axis=1, dtype=np.int64)
    n = np.arange(1, HORIZONS[-1] + 1)
    found = []
    for effect in (np.ones(slow.shape), design_effects(slow)):
        passing, failing = (first_crossing(where) for where in verdicts(bad, n, effect))
        fails_first = (failing > 0) & ((passing == 0) | (failing < passing))
        passes_first = (passing > 0) & ~fails_first
        for most in HORIZONS:
            passed = int((passes_first & (passing <= most)).sum())
            failed = int((fails_first & (failing <= most)).sum())
            found.append((passed, failed))
    return found


def _run(scale: Scale) -> list[Table]:
    runs = scale.runs(_RUNS)
    rows: list[tuple[str | float | int | None, ...]] = []
    for share in SHARES:
        for length in LENGTHS:
            jobs = [(share, length, index, size) for index, size in enumerate(chunks(runs, _CHUNK))]
            counts = np.sum(scale.map(_job, jobs), axis=0)
            rows += [
                (share, length, *case, float(passed) / runs, float(failed) / runs)
                for case, (passed, failed) in zip(_CASES, counts, strict=True)
            ]
    columns = ("share", "burst", "corrected", "n_max", "passes", "fails")
    return [Table("bursts", columns, rows)]


def _view(table: Table) -> str:
    rows = []
    for length in LENGTHS:
        cells = ["independent" if length == 1 else f"bursts of {length}"]
        for share, verdict in (
            (LIMIT, "fails"),
            (LIMIT, "passes"),
            (0.01, "passes"),
            (0.10, "fails"),
        ):
            shown = []
            for corrected in (0, 1):
                found = table.where(share=share, burst=length, corrected=corrected)
                shown.append(" / ".join(percent(row[verdict]) for row in found))
            cells.append(" → ".join(shown))
        rows.append(cells)
    header = ("slow requests", "fails at 5 %", "passes at 5 %", "passes at 1 %", "fails at 10 %")
    return markdown(header, rows)


STUDY: Final = Study("bursts", _run, (View("bursts", "bursts", _view),))
