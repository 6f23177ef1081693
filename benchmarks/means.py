"""Costs: how often the tests of a mean err for skewed amounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from modelrollout.gates.sequential import (
    FEWEST_REQUESTS,
    Judgement,
    Verdict,
    mean_limit,
    mean_ratio,
)

__all__ = ["DEVIATIONS", "ERRORS", "HORIZONS", "STUDY"]

DEVIATIONS: Final = (0.10, 0.25, 0.35, 0.55)
"""Of the logarithm of the amounts."""

HORIZONS: Final = (60, 150, 300)
ALPHA: Final = 0.05
_FAIL, _PASS = 1.10, 1.25
_STABLE_PER_CANDIDATE: Final = 4
_RUNS: Final = 2000
_CHUNK: Final = 100

Floats = NDArray[np.float64]
Moments = tuple[float, float]
Test = Callable[[int, Moments, Moments, int], Judgement]
"""Given the candidate's number, mean and deviation of both arms, and the planned number."""


def _limit(n: int, candidate: Moments, _: Moments, n_max: int) -> Judgement:
    return mean_limit(n, *candidate, limit=1.0, n_max=n_max, alpha=ALPHA)


def _ratio(n: int, candidate: Moments, stable: Moments, n_max: int) -> Judgement:
    return mean_ratio(
        n,
        *candidate,
        _STABLE_PER_CANDIDATE * n,
        *stable,
        margin_fail=_FAIL,
        margin_pass=_PASS,
        n_max=n_max,
        alpha=ALPHA,
    )


ERRORS: Final[dict[str, tuple[Test, float, Verdict]]] = {
    "at the limit, fails": (_limit, 1.0, Verdict.FAIL),
    "at the limit, passes": (_limit, 1.0, Verdict.PASS),
    "at +10 % of stable, fails": (_ratio, _FAIL, Verdict.FAIL),
    "at +25 % of stable, passes": (_ratio, _PASS, Verdict.PASS),
}
"""Each error: the test, the candidate's true mean, and the verdict that is wrong."""


def wrong_verdicts(job: tuple[str, int, int, int]) -> list[int]:
    """Return in how many of a chunk's runs a verdict was wrong, by planned number of amounts."""
    error, deviation, index, size = job
    test, truth, wrong = ERRORS[error]
    random = seeded(5, list(ERRORS).index(error), deviation, index)
    most = HORIZONS[-1]
    candidate = truth * _amounts(DEVIATIONS[deviation], (size, most), random)
    stable = _amounts(DEVIATIONS[deviation], (size, most * _STABLE_PER_CANDIDATE), random)
    counts = [0] * len(HORIZONS)
    for ours, theirs in zip(candidate, stable, strict=True):
        moments_c, moments_s = (
            _moments(ours),
            _moments(theirs)[_STABLE_PER_CANDIDATE - 1 :: _STABLE_PER_CANDIDATE],
        )
        for at, n_max in enumerate(HORIZONS):
            counts[at] += _ends(test, moments_c, moments_s, n_max) == wrong
    return counts


def _ends(test: Test, candidate: Floats, stable: Floats, n_max: int) -> Verdict:
    for n in range(FEWEST_REQUESTS, n_max + 1):
        ours, theirs = candidate[n - 1].tolist(), stable[n - 1].tolist()
        verdict = test(n, (ours[0], ours[1]), (theirs[0], theirs[1]), n_max).verdict
        if verdict in {Verdict.PASS, Verdict.FAIL}:
            return verdict
    return Verdict.INCONCLUSIVE


def _amounts(deviation: float, shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """Draw log-normal amounts with a mean of 1."""
    return np.exp(deviation * random.standard_normal(shape) - deviation**2 / 2)


def _moments(values: Floats) -> Floats:
    """Return mean and standard deviation of the first value, the first two, and so on."""
    n = np.arange(1, len(values) + 1)
    mean = np.cumsum(values) / n
    spread = np.maximum(0.0, np.cumsum(values**2) / n - mean**2) * n / np.maximum(1, n - 1)
    return np.stack([mean, np.sqrt(spread)], axis=1)


def _run(scale: Scale) -> list[Table]:
    runs = scale.runs(_RUNS)
    rows: list[tuple[str | float | int | None, ...]] = []
    for error in ERRORS:
        for at, deviation in enumerate(DEVIATIONS):
            jobs = [(error, at, index, size) for index, size in enumerate(chunks(runs, _CHUNK))]
            counts = np.sum(scale.map(wrong_verdicts, jobs), axis=0)
            rows += [
                (error, deviation, n_max, float(count) / runs)
                for n_max, count in zip(HORIZONS, counts, strict=True)
            ]
    return [Table("means", ("error", "log_deviation", "n_max", "rate"), rows)]


def _view(table: Table) -> str:
    rows = [
        (
            error,
            *(
                " / ".join(
                    percent(row["rate"])
                    for row in table.where(error=error, log_deviation=deviation)
                )
                for deviation in DEVIATIONS
            ),
        )
        for error in ERRORS
    ]
    header = ("wrong verdict", *(f"log-deviation {deviation:g}" for deviation in DEVIATIONS))
    return markdown(header, rows)


STUDY: Final = Study("means", _run, (View("means", "means", _view),))
