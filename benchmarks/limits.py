"""Where the assumptions of the latency comparison do not hold: how far its errors move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.courses import STABLE_PODS, Margins, courses, judge
from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from benchmarks.traffic import Traffic, residuals
from modelrollout.gates.sequential import Verdict

__all__ = ["BY_CORRELATION", "HORIZONS", "SCENARIOS", "STUDY", "Scenario"]

HORIZONS: Final = (60, 150, 300)
SHARE: Final = 0.20
MARGINS: Final = Margins()
_RUNS: Final = 1000
_CHUNK: Final = 100
_LEVEL: Final = 3.0
"""Log seconds; it does not matter."""

_DEVIATION: Final = 0.35
_STEP: Final = 200
"""Requests after which the candidate's share is raised."""

Floats = NDArray[np.float64]
Shape = tuple[int, int]
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way in which traffic is not what the test takes it to be."""

    name: str
    generate: Callable[[Shape, Random], Traffic]
    pooled: bool = False
    """Whether the server does not tell classes of requests apart."""

    slowed: int | None = None
    """The class, half of the requests, that alone is slower, twice as much; all when it is None."""


def _traffic(
    log_seconds: Floats,
    candidate: NDArray[np.bool_],
    classes: NDArray[np.int64] | None = None,
) -> Traffic:
    """Return traffic of which five requests are answered in each tick."""
    tick = np.broadcast_to(np.arange(log_seconds.shape[1]) // 5, log_seconds.shape)
    known = np.zeros(log_seconds.shape, dtype=np.int64) if classes is None else classes
    return Traffic(tick, known, log_seconds, candidate, int(known.max()) + 1)


def _assigned(shape: Shape, random: Random) -> NDArray[np.bool_]:
    return random.random(shape) < SHARE


def _pods(shape: Shape, random: Random) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which requests go to the candidate's pod, and the pod of each request."""
    candidate = _assigned(shape, random)
    pod = np.where(candidate, 0, 1 + random.integers(STABLE_PODS, size=shape))
    return candidate, pod


def _from_series(series: Floats, place: NDArray[np.bool_]) -> Floats:
    """Return the values of a series in order, where `place` is true."""
    at = np.maximum(np.cumsum(place, axis=1) - 1, 0)
    return np.where(place, np.take_along_axis(series, at, axis=1), 0.0)


def independent(shape: Shape, random: Random) -> Traffic:
    """Draw requests of one class that know nothing of each other."""
    return _traffic(_LEVEL + _DEVIATION * random.standard_normal(shape), _assigned(shape, random))


def within_pods(correlation: float) -> Callable[[Shape, Random], Traffic]:
    """Return traffic in which each pod has spells of its own, as queues have."""

    def draw(shape: Shape, random: Random) -> Traffic:
        candidate, pod = _pods(shape, random)
        noise = np.zeros(shape)
        for index in range(STABLE_PODS + 1):
            noise += _from_series(residuals(shape, correlation, random), pod == index)
        return _traffic(_LEVEL + _DEVIATION * noise, candidate)

    return draw


def in_common(correlation: float) -> Callable[[Shape, Random], Traffic]:
    """Return traffic in which the whole service has good and bad spells, both arms at once."""

    def draw(shape: Shape, random: Random) -> Traffic:
        noise = residuals(shape, correlation, random)
        return _traffic(_LEVEL + _DEVIATION * noise, _assigned(shape, random))

    return draw


def changing_mix(shape: Shape, random: Random) -> Traffic:
    """Let long requests, three times the others, grow from 20 to 80 percent of the traffic."""
    weight = np.linspace(0.2, 0.8, shape[1])
    classes = (random.random(shape) < weight).astype(np.int64)
    log_seconds = _LEVEL + math.log(3) * classes + _DEVIATION * random.standard_normal(shape)
    return _traffic(log_seconds, _assigned(shape, random), classes)


def growing_share(shape: Shape, random: Random) -> Traffic:
    """Let the candidate's share grow, 10, 25, 50 percent, while both arms get 20 % slower."""
    place = np.arange(shape[1])
    share = np.where(place < _STEP, 0.10, np.where(place < 2 * _STEP, 0.25, 0.50))
    slower = math.log(1.2) * np.minimum(1.0, place / (3 * _STEP))
    log_seconds = _LEVEL + slower + _DEVIATION * random.standard_normal(shape)
    return _traffic(log_seconds, random.random(shape) < share)


def heavy_tails(freedom: int) -> Callable[[Shape, Random], Traffic]:
    """Return traffic with residuals of Student's t distribution, of the same deviation."""

    def draw(shape: Shape, random: Random) -> Traffic:
        scale = _DEVIATION / math.sqrt(freedom / (freedom - 2))
        return _traffic(
            _LEVEL + scale * random.standard_t(freedom, size=shape), _assigned(shape, random)
        )

    return draw


def stragglers(shape: Shape, random: Random) -> Traffic:
    """Draw requests of which three in a hundred take four times as long, at both arms."""
    late = math.log(4) * (random.random(shape) < 0.03)
    return _traffic(
        _LEVEL + late + _DEVIATION * random.standard_normal(shape), _assigned(shape, random)
    )


def unequal_classes(shape: Shape, random: Random) -> Traffic:
    """Draw requests of three classes with log-deviations of 0.15, 0.35 and 0.90."""
    classes = random.choice(3, size=shape, p=[0.5, 0.3, 0.2])
    deviation = np.array([0.15, 0.35, 0.90])[classes]
    return _traffic(
        _LEVEL + deviation * random.standard_normal(shape), _assigned(shape, random), classes
    )


def two_classes(shape: Shape, random: Random) -> Traffic:
    """Draw requests of two classes with log-deviations of 0.25 and 0.55, half of them each."""
    classes = random.integers(2, size=shape)
    deviation = np.array([0.25, 0.55])[classes]
    return _traffic(
        _LEVEL + deviation * random.standard_normal(shape), _assigned(shape, random), classes
    )


def unequal_arms(ratio: float) -> Callable[[Shape, Random], Traffic]:
    """Return traffic in which the candidate's log-deviation is so many times stable's."""

    def draw(shape: Shape, random: Random) -> Traffic:
        candidate = _assigned(shape, random)
        deviation = _DEVIATION * np.where(candidate, ratio, 1.0)
        return _traffic(_LEVEL + deviation * random.standard_normal(shape), candidate)

    return draw


BY_CORRELATION: Final = {
    0.0: "independent requests",
    0.2: "each pod in spells, correlation .2",
    0.4: "each pod in spells, correlation .4",
    0.6: "each pod in spells, correlation .6",
    0.8: "each pod in spells, correlation .8",
}
"""Names of the scenarios in which neighbours at one pod correlate."""

SCENARIOS: Final = (
    Scenario("independent requests", independent),
    *(
        Scenario(name, within_pods(correlation))
        for correlation, name in BY_CORRELATION.items()
        if correlation
    ),
    Scenario("whole service in spells, correlation .5", in_common(0.5)),
    Scenario("whole service in spells, correlation .8", in_common(0.8)),
    Scenario("mix of classes changes", changing_mix),
    Scenario("the same, classes not told apart", changing_mix, pooled=True),
    Scenario("share 10, 25, 50 % while all slows by 20 %", growing_share),
    Scenario("heavy tails (t, 5 degrees of freedom)", heavy_tails(5)),
    Scenario("heavier tails (t, 3)", heavy_tails(3)),
    Scenario("3 % stragglers, four times as long", stragglers),
    Scenario("classes of deviation .15, .35, .90", unequal_classes),
    Scenario("classes of .25, .55; all slow-down in the second", two_classes, slowed=1),
    Scenario("candidate spreads twice as much", unequal_arms(2.0)),
    Scenario("candidate spreads half as much", unequal_arms(0.5)),
)

TRUTHS: Final = {"false_fail": 1.0, "fail": MARGINS.fail, "pass": MARGINS.passing}
"""The error that is counted, and the true slowdown at which it is one."""


def errors(
    scenario: Scenario, truth: str, *, runs: int, corrected: bool, seed: tuple[int, ...]
) -> list[int]:
    """Return in how many runs the verdict was the wrong one, by planned number of requests."""
    shape = (runs, int(HORIZONS[-1] * 1.2 / SHARE))
    traffic = scenario.generate(shape, seeded(4, *seed))
    wrong = Verdict.PASS if truth == "pass" else Verdict.FAIL
    if scenario.slowed is not None:
        twice = 2 * (traffic.request_class == scenario.slowed) - 1
        moved = traffic.candidate * twice * math.log(TRUTHS[truth])
        traffic = replace(traffic, log_seconds=traffic.log_seconds + moved)
    counts = [0] * len(HORIZONS)
    for course in courses(traffic, math.log(TRUTHS[truth]), pooled=scenario.pooled):
        ends = judge(course, HORIZONS, MARGINS, corrected=corrected)
        counts = [count + (end.verdict == wrong) for count, end in zip(counts, ends, strict=True)]
    return counts


def _job(job: tuple[int, str, bool, int, int]) -> list[int]:
    at, truth, corrected, index, size = job
    number = list(TRUTHS).index(truth)
    return errors(SCENARIOS[at], truth, runs=size, corrected=corrected, seed=(at, number, index))


def _run(scale: Scale) -> list[Table]:
    runs = scale.runs(_RUNS)
    rows: list[tuple[str | float | int | None, ...]] = []
    for at, scenario in enumerate(SCENARIOS):
        for truth in TRUTHS:
            for corrected in (False, True):
                jobs = [
                    (at, truth, corrected, index, size)
                    for index, size in enumerate(chunks(runs, _CHUNK))
                ]
                counts = np.sum(scale.map(_job, jobs), axis=0)
                rows += [
                    (scenario.name, truth, int(corrected), n_max, float(count) / runs)
                    for n_max, count in zip(HORIZONS, counts, strict=True)
                ]
    return [Table("limits", ("traffic", "error", "corrected", "n_max", "rate"), rows)]


def _view(table: Table) -> str:
    rows = []
    for scenario in SCENARIOS:
        cells = [scenario.name]
        for truth in TRUTHS:
            shown = []
            for corrected in (0, 1):
                found = table.where(traffic=scenario.name, error=truth, corrected=corrected)
                shown.append(" / ".join(percent(row["rate"]) for row in found))
            cells.append(" → ".join(shown))
        rows.append(cells)
    header = ("traffic", "fails at none", "fails at +10 %", "passes at +25 %")
    return markdown(header, rows)


STUDY: Final = Study("limits", _run, (View("limits", "limits", _view),))
