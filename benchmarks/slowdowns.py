"""A slower candidate under realistic traffic: the engine beside the usual rules."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from benchmarks.courses import Course, End, Margins, courses, judge
from benchmarks.rivals import (
    AnalysisRun,
    FlaggerLoop,
    Outcome,
    RankJudge,
    quantile_ratio,
    sorted_quantile,
)
from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from benchmarks.traffic import STUDIO, generate
from modelrollout.gates.sequential import FEWEST_REQUESTS, Verdict

__all__ = ["HORIZONS", "RULES", "SLOWDOWNS", "STUDY", "simulate"]

SLOWDOWNS: Final = (1.0, 1.08, 1.10, 1.15, 1.25, 1.5, 2.0)
HORIZONS: Final = (60, 150, 300)
SHARE: Final = 0.20
_RUNS: Final = 2000
_RUNS_WHERE_JUDGED: Final = 10_000
"""Of the engine at the slow-down that it has to catch: its rates are promised to a percent."""

_CAUGHT: Final = 1.25
_CHUNK: Final = 100
_WINDOWS: Final = 10
_SLOWER: Final = 1.20
"""Ratio of 95th percentiles that the threshold rules allow."""


Rule = Callable[[Course, Sequence[int]], list[End]]
"""Given a trial and planned numbers of requests of the candidate, how it ends for each."""


def _engine(course: Course, horizons: Sequence[int]) -> list[End]:
    return judge(course, horizons, Margins())


def _quantile_each_look(course: Course, n_max: int) -> End:
    """Roll back as soon as the ratio of the 95th percentiles so far is above the threshold."""
    candidate: list[float] = sorted(course.candidate[: FEWEST_REQUESTS - 1])
    stable: list[float] = []
    n_c, n_s = len(candidate), 0
    for look in course.until(n_max):
        now_c, now_s = course.looks[look].tolist()
        for value in course.candidate[n_c:now_c].tolist():
            insort(candidate, value)
        for value in course.stable[n_s:now_s].tolist():
            insort(stable, value)
        n_c, n_s = now_c, now_s
        if sorted_quantile(candidate, 0.95) > _SLOWER * sorted_quantile(stable, 0.95):
            return End(Verdict.FAIL, n_c)
    return End(Verdict.PASS, n_c)


def _quantile_once(course: Course, n_max: int) -> End:
    """Look at the same ratio only in the end."""
    n_s = _stable_beside(course, n_max)
    ratio = quantile_ratio(course.candidate[:n_max], course.stable[:n_s], 0.95)
    return End(Verdict.FAIL if ratio > _SLOWER else Verdict.PASS, n_max)


def _rank_judge(course: Course, n_max: int) -> End:
    """Judge all requests so far, ten times; one High ends it."""
    rank = RankJudge()
    for step in range(1, _WINDOWS + 1):
        n_c = n_max * step // _WINDOWS
        n_s = _stable_beside(course, n_c)
        if rank.high(course.candidate[:n_c], course.stable[:n_s]):
            return End(Verdict.FAIL, n_c)
    return End(Verdict.PASS, n_max)


def _by_windows(check: Callable[[float], Outcome], course: Course, n_max: int) -> End:
    """Give a loop the ratio of 95th percentiles of one window after the other."""
    size, n_s = n_max // _WINDOWS, 0
    for begin in range(0, 2 * n_max, size):
        until = _stable_beside(course, begin + size)
        ratio = quantile_ratio(
            course.candidate[begin : begin + size], course.stable[n_s:until], 0.95
        )
        outcome, n_s = check(ratio), until
        if outcome is not Outcome.RUNNING:
            verdict = Verdict.PASS if outcome is Outcome.PASSED else Verdict.FAIL
            return End(verdict, begin + size)
    raise AssertionError("the loops end after twice their windows at the latest")


def _flagger(threshold: int) -> Callable[[Course, int], End]:
    def rule(course: Course, n_max: int) -> End:
        loop = FlaggerLoop(maximum=_SLOWER, iterations=_WINDOWS, threshold=threshold)
        return _by_windows(loop.check, course, n_max)

    return rule


def _analysis_run(failure_limit: int) -> Callable[[Course, int], End]:
    def rule(course: Course, n_max: int) -> End:
        run = AnalysisRun(success_below=_SLOWER, count=_WINDOWS, failure_limit=failure_limit)
        return _by_windows(run.measure, course, n_max)

    return rule


def _each(rule: Callable[[Course, int], End]) -> Rule:
    return lambda course, horizons: [rule(course, n_max) for n_max in horizons]


RULES: Final[dict[str, Rule]] = {
    "engine": _engine,
    "p95 ratio, each look": _each(_quantile_each_look),
    "p95 ratio, once": _each(_quantile_once),
    "Flagger, threshold 1": _each(_flagger(1)),
    "Flagger, threshold 2": _each(_flagger(2)),
    "Argo, failureLimit 0": _each(_analysis_run(0)),
    "Argo, failureLimit 3": _each(_analysis_run(3)),
    "rank judge, ten looks": _each(_rank_judge),
}


def simulate(
    job: tuple[int, int, int], rules: Sequence[str] = tuple(RULES)
) -> list[tuple[str, int, str, int]]:
    """Return how each run of a chunk ended: rule, planned requests, verdict, requests."""
    slowdown, index, size = job
    # Enough for the longest plan and for loops that take windows beyond it.
    requests = int(HORIZONS[-1] * 1.4 / SHARE)
    traffic = generate(
        STUDIO, runs=size, requests=requests, share=SHARE, random=seeded(3, slowdown, index)
    )
    ends = []
    for course in courses(traffic, math.log(SLOWDOWNS[slowdown])):
        for name in rules:
            for n_max, end in zip(HORIZONS, RULES[name](course, HORIZONS), strict=True):
                ends.append((name, n_max, str(end.verdict), end.n))
    return ends


def _simulate_engine(job: tuple[int, int, int]) -> list[tuple[str, int, str, int]]:
    return simulate(job, ["engine"])


def _run(scale: Scale) -> list[Table]:
    runs = scale.runs(_RUNS)
    rows: list[tuple[str | float | int | None, ...]] = []
    for at, slowdown in enumerate(SLOWDOWNS):
        jobs = [(at, index, size) for index, size in enumerate(chunks(runs, _CHUNK))]
        ends = [end for part in scale.map(simulate, jobs) for end in part]
        if slowdown == _CAUGHT:
            more = chunks(scale.runs(_RUNS_WHERE_JUDGED) - runs, _CHUNK)
            jobs = [(at, len(jobs) + index, size) for index, size in enumerate(more)]
            ends += [end for part in scale.map(_simulate_engine, jobs) for end in part]
        for name in RULES:
            for n_max in HORIZONS:
                mine = [
                    (verdict, n) for rule, most, verdict, n in ends if (rule, most) == (name, n_max)
                ]
                rows.append((name, slowdown, n_max, *_summary(mine)))
    columns = ("rule", "slowdown", "n_max", "fails", "passes", "n_to_pass", "n_to_fail")
    return [Table("slowdowns", columns, rows)]


def _summary(ends: list[tuple[str, int]]) -> tuple[float, float, float | None, float | None]:
    """Return the shares of Fail and Pass, and the median requests to each."""
    passed = [n for verdict, n in ends if verdict == Verdict.PASS]
    failed = [n for verdict, n in ends if verdict == Verdict.FAIL]
    return (
        len(failed) / len(ends),
        len(passed) / len(ends),
        float(np.median(passed)) if passed else None,
        float(np.median(failed)) if failed else None,
    )


def _stable_beside(course: Course, n_c: int) -> int:
    """Return how many of stable's requests were answered when the candidate had so many."""
    look = min(int(np.searchsorted(course.looks[:, 0], n_c)), len(course.looks) - 1)
    return int(course.looks[look, 1])


def _view_rules(table: Table) -> str:
    rows = []
    for name in RULES:
        cells = [name]
        for slowdown in SLOWDOWNS:
            of = [table.where(rule=name, slowdown=slowdown, n_max=most)[0] for most in HORIZONS]
            cells.append(" / ".join(percent(row["fails"]) for row in of))
        rows.append(cells)
    return markdown(("rule", *(_named(slowdown) for slowdown in SLOWDOWNS)), rows)


def _view_engine(table: Table) -> str:
    rows = []
    for slowdown in SLOWDOWNS:
        cells = [_named(slowdown)]
        for n_max in HORIZONS:
            (row,) = table.where(rule="engine", slowdown=slowdown, n_max=n_max)
            n = row["n_to_pass"]
            cells.append(
                f"{percent(row['passes'])} / {percent(row['fails'])}"
                + (f" ({n:.0f})" if isinstance(n, int | float) else "")
            )
        rows.append(cells)
    return markdown(("true slowdown", *(f"at most {n}" for n in HORIZONS)), rows)


def _named(slowdown: float) -> str:
    return "none" if slowdown == 1 else f"+{round(100 * (slowdown - 1))} %"


STUDY: Final = Study(
    "slowdowns",
    _run,
    (
        View("slowdowns", "slowdowns", _view_rules),
        View("engine", "slowdowns", _view_engine),
    ),
)
