"""Out of memory and other rare events: how many it takes, how often they are seen in time."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import bdtrc

from benchmarks.boundaries import decide_shares, share_boundaries
from benchmarks.rivals import RankJudge
from benchmarks.study import Scale, Study, chunks, percent, seeded
from benchmarks.tables import Table, View, markdown
from modelrollout.gates.sequential import Verdict, rate_upper_bound, two_arm_counts

__all__ = ["SHARES", "STUDY", "fewest_to_fail", "fewest_to_fail_once"]

ALPHA: Final = 0.05
SHARES: Final = (0.05, 0.20, 0.50)
AT_STABLE: Final = (0, 1, 2, 5, 10)
RATIOS: Final = (1, 3, 10, 30)
HOURS: Final = (2, 6, 24)
_BASE: Final = 0.1
"""Events per hour of the candidate's exposure, if it is like stable."""

_SHARE: Final = 0.20
_RUNS: Final = 20_000
_CHUNK: Final = 5000
_EXPOSURE: Final = 1e4
_MINUTES: Final = 30
_ERROR_EVERY: Final = 2
"""The candidate fails one request in every second minute, stable none at all."""


def fewest_to_fail(at_stable: int, share: float) -> int:
    """Return the events at which the candidate fails against so many of stable."""
    for events in range(1, 1000):
        if _verdict(events, at_stable, share) == Verdict.FAIL:
            return events
    raise AssertionError("a thousand events are enough to fail")


def fewest_to_fail_once(at_stable: int, share: float) -> int:
    """Return the same for the exact conditional test, which may be looked at once only."""
    for events in range(1, 1000):
        if bdtrc(events - 1, events + at_stable, share) <= ALPHA * (1 + 1e-9):
            return events
    raise AssertionError("a thousand events are enough to fail")


def _verdict(at_candidate: int, at_stable: int, share: float) -> Verdict:
    return two_arm_counts(
        at_candidate,
        share * _EXPOSURE,
        at_stable,
        (1 - share) * _EXPOSURE,
        max_ratio=1.0,
        alpha=ALPHA,
    ).verdict


def _power(job: tuple[int, int, int, int]) -> tuple[int, int]:
    """Return how many runs of a chunk fail: with a look after each event, and with one at the end.

    The verdict depends on the order of both arms' events alone, so only those are drawn.
    """
    ratio, hours, index, size = job
    random = seeded(7, ratio, hours, index)
    mean_c = _BASE * ratio * hours
    mean_s = _BASE * hours * (1 - _SHARE) / _SHARE
    events = random.poisson(mean_c + mean_s, size)
    most = max(1, int(events.max()))
    ours = random.random((size, most)) < mean_c / (mean_c + mean_s)
    passing, failing = share_boundaries(_SHARE, most, ALPHA, ALPHA)
    # That events are rarer than at stable is no reason to stop.
    _, failed = decide_shares(ours, np.full_like(passing, -1), failing)
    seen = int(((failed > 0) & (failed <= events)).sum())
    inside = np.arange(most) < events[:, None]
    k = (ours & inside).sum(axis=1)
    once = int(((k > 0) & (bdtrc(k - 1, events, _SHARE) <= ALPHA)).sum())
    return seen, once


def _false_alarms(job: tuple[float, int, int]) -> int:
    """Return how many runs ever fail though the rates are equal, in a thousand events."""
    share, index, size = job
    passing, failing = share_boundaries(share, 1000, ALPHA, ALPHA)
    random = seeded(8, SHARES.index(share), index)
    ours = random.random((size, 1000)) < share
    _, failed = decide_shares(ours, np.full_like(passing, -1), failing)
    return int((failed > 0).sum())


def sparse_errors() -> list[tuple[str, str]]:
    """Return what two judges say of errors in every second minute against none at all."""
    series = np.array([float(minute % _ERROR_EVERY) for minute in range(_MINUTES)])
    high = RankJudge().high(series, np.zeros(_MINUTES))
    errors = int(series.sum())
    ours = two_arm_counts(errors, 600, 0, 2400, max_ratio=1.0, alpha=ALPHA)
    return [
        ("rank judge on errors per minute", "Fail" if high else "Pass"),
        ("engine, errors per request", str(ours.verdict)),
    ]


def _run(scale: Scale) -> list[Table]:
    counts: list[tuple[str | float | int | None, ...]] = [
        (share, at_stable, fewest_to_fail(at_stable, share), fewest_to_fail_once(at_stable, share))
        for share in SHARES
        for at_stable in AT_STABLE
    ]
    runs = scale.runs(_RUNS)
    power: list[tuple[str | float | int | None, ...]] = []
    for ratio in RATIOS:
        for hours in HOURS:
            jobs = [(ratio, hours, index, size) for index, size in enumerate(chunks(runs, _CHUNK))]
            seen, once = np.sum(scale.map(_power, jobs), axis=0)
            power.append((ratio, hours, float(seen) / runs, float(once) / runs))
    alarms: list[tuple[str | float | int | None, ...]] = [
        (
            share,
            sum(
                scale.map(
                    _false_alarms, [(share, i, n) for i, n in enumerate(chunks(runs, _CHUNK))]
                )
            )
            / runs,
        )
        for share in SHARES
    ]
    bounds: list[tuple[str | float | int | None, ...]] = [
        (requests, rate_upper_bound(0, requests, alpha=ALPHA))
        for requests in (30, 59, 100, 300, 1000, 2995)
    ]
    return [
        Table("oom_counts", ("share", "at_stable", "fails_at", "fails_at_once"), counts),
        Table("oom_power", ("ratio", "hours", "fails", "fails_once"), power),
        Table("oom_false_alarms", ("share", "fails"), alarms),
        Table("oom_bounds", ("requests", "rate_below"), bounds),
        Table("sparse_errors", ("judge", "verdict"), sparse_errors()),
    ]


def _view_counts(table: Table) -> str:
    rows = []
    for share in SHARES:
        found = table.where(share=share)
        shown = [f"{row['fails_at']} ({row['fails_at_once']})" for row in found]
        rows.append((f"{100 * share:g} %", *shown))
    return markdown(("candidate's share", *(f"stable {n}" for n in AT_STABLE)), rows)


def _view_power(table: Table) -> str:
    rows = []
    for ratio in RATIOS:
        found = table.where(ratio=ratio)
        shown = [f"{percent(row['fails'])} ({percent(row['fails_once'])})" for row in found]
        rows.append((f"{ratio} x", *shown))
    return markdown(("true ratio", *(f"{hours} h" for hours in HOURS)), rows)


def _view_alarms(table: Table) -> str:
    return markdown(
        ("candidate's share", "ever fails"),
        [(f"{100 * float(row['share'] or 0):g} %", percent(row["fails"])) for row in table.where()],
    )


STUDY: Final = Study(
    "rare_events",
    _run,
    (
        View("oom_counts", "oom_counts", _view_counts),
        View("oom_power", "oom_power", _view_power),
        View("oom_false_alarms", "oom_false_alarms", _view_alarms),
    ),
)
