"""Costs: how often the tests of a mean err for skewed amounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from benchmarks.traffic import STUDIO
from modelrollout.gates.sequential import (
    FEWEST_REQUESTS,
    Judgement,
    Verdict,
    mean_limit,
    mean_ratio,
)

__all__ = ["AMOUNTS", "ERRORS", "HORIZONS", "STUDY"]

Floats = NDArray[np.float64]
Draw = Callable[[tuple[int, int], np.random.Generator], Floats]


def log_normal(deviation: float) -> Draw:
    """Return how to draw amounts with a mean of 1 and that deviation of their logarithm."""

    def draw(shape: tuple[int, int], random: np.random.Generator) -> Floats:
        return np.exp(deviation * random.standard_normal(shape) - deviation**2 / 2)

    return draw


def of_mixed_classes(shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """Draw amounts with a mean of 1, as the classes of realistic traffic cost."""
    weights = np.array([item.weight for item in STUDIO.classes])
    medians = np.array([item.median for item in STUDIO.classes])
    deviations = np.array([item.log_deviation for item in STUDIO.classes])
    mean = (weights * medians * np.exp(deviations**2 / 2)).sum() / weights.sum()
    of = random.choice(len(weights), size=shape, p=weights / weights.sum())
    amounts: Floats = medians[of] / mean * np.exp(deviations[of] * random.standard_normal(shape))
    return amounts


AMOUNTS: Final[dict[str, Draw]] = {
    **{
        f"log-deviation {deviation:g}": log_normal(deviation)
        for deviation in (0.1, 0.25, 0.35, 0.55)
    },
    "mix of classes": of_mixed_classes,
}

HORIZONS: Final = (60, 150, 300)
ALPHA: Final = 0.05
_FAIL, _PASS = 1.10, 1.25
_STABLE_PER_CANDIDATE: Final = 4
_RUNS: Final = 2000
_CHUNK: Final = 100

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
    error, amounts, index, size = job
    test, truth, wrong = ERRORS[error]
    random = seeded(5, list(ERRORS).index(error), amounts, index)
    draw = list(AMOUNTS.values())[amounts]
    most = HORIZONS[-1]
    candidate = truth * draw((size, most), random)
    stable = draw((size, most * _STABLE_PER_CANDIDATE), random)
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
        for at, amounts in enumerate(AMOUNTS):
            jobs = [(error, at, index, size) for index, size in enumerate(chunks(runs, _CHUNK))]
            counts = np.sum(scale.map(wrong_verdicts, jobs), axis=0)
            rows += [
                (error, amounts, n_max, float(count) / runs)
                for n_max, count in zip(HORIZONS, counts, strict=True)
            ]
    return [Table("means", ("error", "amounts", "n_max", "rate"), rows)]


def _view(table: Table) -> str:
    rows = [
        (
            error,
            *(
                " / ".join(
                    percent(row["rate"]) for row in table.where(error=error, amounts=amounts)
                )
                for amounts in AMOUNTS
            ),
        )
        for error in ERRORS
    ]
    return markdown(("wrong verdict", *AMOUNTS), rows)


STUDY: Final = Study("means", _run, (View("means", "means", _view),))
