"""How a gate on a share ends for a known truth, beside the rule that counts breaches of windows."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc

from benchmarks.boundaries import decide_shares, share_boundaries
from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown

__all__ = ["HORIZONS", "SHARES", "STUDY", "breaches", "exact", "simulated"]

LIMIT: Final = 0.05
ALPHA: Final = 0.05
HORIZONS: Final = (120, 300, 600, 1200)
SHARES: Final = (0.01, 0.02, 0.03, 0.05, 0.08, 0.10, 0.15)
_RUNS: Final = 20_000
_CHUNK: Final = 5000

PUBLISHED: Final[dict[int, tuple[tuple[float, float], ...]]] = {
    120: ((0.49, 0), (0.23, 0), (0.11, 0), (0.03, 0.02), (0, 0.11), (0, 0.26), (0, 0.85)),
    300: ((0.95, 0), (0.59, 0), (0.26, 0), (0.03, 0.02), (0, 0.24), (0, 0.65), (0, 1.0)),
    600: ((1.0, 0), (0.91, 0), (0.46, 0), (0.04, 0.02), (0, 0.47), (0, 0.94), (0, 1.0)),
    1200: ((1.0, 0), (1.0, 0), (0.76, 0), (0.04, 0.02), (0, 0.83), (0, 1.0), (0, 1.0)),
}
"""P(pass) and P(fail) by 4000 runs, from the design's notes, by largest number of requests."""

WINDOWS: Final = (6, 12, 30, 60, 120)
_WINDOW_COUNT: Final = 10
_TOLERATED: Final = 2

PUBLISHED_BREACHES: Final[dict[int, tuple[float, ...]]] = {
    6: (0.02, 0.10, 0.23, 0.52, 0.82, 0.92),
    12: (0.10, 0.37, 0.63, 0.91, 0.99, 1.0),
    30: (0.01, 0.11, 0.40, 0.90, 1.0, 1.0),
    60: (0.00, 0.00, 0.08, 0.74, 1.0, 1.0),
    120: (0.00, 0.00, 0.03, 0.82, 1.0, 1.0),
}
"""P(rollback) of the window rule, exact, from the design's notes; no 15 % there."""


def exact(share: float, n_max: int) -> tuple[float, float, int | None, int | None]:
    """Return P(pass), P(fail) and the median requests to each, with a look after each request.

    The distribution of slow requests among the courses that go on is carried from request to
    request; what is beyond a boundary is taken out.
    """
    passing, failing = share_boundaries(LIMIT, n_max, ALPHA, ALPHA)
    going_on = np.ones(1)
    passed, failed = np.zeros(n_max + 1), np.zeros(n_max + 1)
    for n in range(1, n_max + 1):
        going_on = np.append(going_on * (1 - share), 0.0) + np.append(0.0, going_on * share)
        good, bad = int(passing[n]) + 1, int(failing[n])
        passed[n], failed[n] = going_on[:good].sum(), going_on[bad:].sum()
        going_on[:good] = going_on[bad:] = 0.0
    return float(passed.sum()), float(failed.sum()), _median(passed), _median(failed)


def _median(ended: NDArray[np.float64]) -> int | None:
    """Return the number of requests after which half of the courses have ended that ever do."""
    so_far = np.cumsum(ended)
    return int(np.searchsorted(so_far, so_far[-1] / 2)) if so_far[-1] > 0 else None


def simulated(share: float, runs: int, index: int) -> dict[int, tuple[float, float]]:
    """Return P(pass) and P(fail) by largest number of requests, of simulated requests."""
    passing, failing = share_boundaries(LIMIT, HORIZONS[-1], ALPHA, ALPHA)
    ended = [
        decide_shares(seeded(2, index, part).random((size, HORIZONS[-1])) < share, passing, failing)
        for part, size in enumerate(chunks(runs, _CHUNK))
    ]
    passed = np.concatenate([item[0] for item in ended])
    failed = np.concatenate([item[1] for item in ended])
    return {
        most: (
            float(((passed > 0) & (passed <= most)).mean()),
            float(((failed > 0) & (failed <= most)).mean()),
        )
        for most in HORIZONS
    }


def breaches(share: float, requests: int) -> float:
    """Return P(rollback) of "p95 at most T in each of ten windows, at most two breaches".

    A window breaches when its 95th percentile, the value that 95 % of its requests do not exceed,
    is above T: when more than 5 % of its requests are.
    """
    allowed = int(LIMIT * requests + 1e-9)
    breach = float(bdtrc(allowed, requests, share))
    return 1 - float(bdtr(_TOLERATED, _WINDOW_COUNT, breach))


def _cell(job: tuple[int, int]) -> list[tuple[str | float | int | None, ...]]:
    at, runs = job
    share = SHARES[at]
    by_runs = simulated(share, runs, at)
    rows: list[tuple[str | float | int | None, ...]] = []
    for most in HORIZONS:
        published = PUBLISHED[most][at]
        rows.append((most, share, *exact(share, most), *by_runs[most], *published))
    return rows


def _run(scale: Scale) -> list[Table]:
    runs = scale.runs(_RUNS)
    parts = scale.map(_cell, [(at, runs) for at in range(len(SHARES))])
    columns = (
        "n_max", "share", "passes", "fails", "n_to_pass", "n_to_fail",
        "simulated_passes", "simulated_fails", "published_passes", "published_fails",
    )  # fmt: skip
    curves = [(most, round(0.0025 * step, 4)) for most in HORIZONS for step in range(1, 65)]
    windows: list[tuple[str | float | int | None, ...]] = [
        (requests, share, breaches(share, requests), _published_breach(requests, at))
        for requests in WINDOWS
        for at, share in enumerate(SHARES)
    ]
    return [
        Table("shares", columns, [row for part in parts for row in part]),
        Table("windows", ("requests", "share", "rolls_back", "published"), windows),
        Table("share_curves", ("n_max", "share", "passes", "fails"), scale.map(_curve, curves)),
    ]


def _curve(job: tuple[int, float]) -> tuple[str | float | int | None, ...]:
    most, share = job
    return (most, share, *exact(share, most)[:2])


def _published_breach(requests: int, at: int) -> float | None:
    known = PUBLISHED_BREACHES[requests]
    return known[at] if at < len(known) else None


def _view_shares(table: Table) -> str:
    rows = []
    for most in HORIZONS:
        cells = [str(most)]
        for share in SHARES:
            (row,) = table.where(n_max=most, share=share)
            n = row["n_to_pass"] if share < LIMIT else row["n_to_fail"]
            shown = f"{percent(row['passes'])} / {percent(row['fails'])}"
            cells.append(shown + (f" ({n})" if share != LIMIT and n is not None else ""))
        rows.append(cells)
    return markdown(("at most", *(f"{100 * share:g} % slow" for share in SHARES)), rows)


def _view_windows(table: Table) -> str:
    rows = [
        (str(n), *(percent(row["rolls_back"]) for row in table.where(requests=n))) for n in WINDOWS
    ]
    return markdown(("requests per window", *(f"{100 * share:g} % slow" for share in SHARES)), rows)


STUDY: Final = Study(
    "shares",
    _run,
    (View("shares", "shares", _view_shares), View("windows", "windows", _view_windows)),
)
