"""From the series that Prometheus returned to a snapshot: pure, and wary of every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from imagegen import contract
from modelrollout.evidence.queries import (
    DEVICE_MEMORY,
    NAMESPACE,
    PEAK_MEMORY,
    POD,
    PROBE_FAMILIES,
    SERVER_FAMILIES,
    Family,
)
from modelrollout.gates.evidence import ProbeTotals, Snapshot
from modelrollout.gates.totals import Incomparable, LogMoments, Totals

__all__ = ["Sample", "collect"]

_Read = TypeVar("_Read", Totals, ProbeTotals)

_Key = tuple[str, str]
"""Namespace and pod."""

_LONGEST_EDGE: Final = 1e6
"""Seconds; a limit is never beyond it."""

_CLASSES: Final = frozenset(contract.REQUEST_CLASSES)

_ROUNDING: Final = 1e-6
"""What a number of milliseconds may be off a whole one, as 1.7 is no exact binary fraction."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at the evaluation time."""

    labels: Mapping[str, str]
    value: float


class _Unusable(Exception):
    """A series is missing, doubled, or has a value that it cannot have."""


@dataclass(slots=True)
class _Series:
    """The values of one pod, by metric and by the label that tells them apart."""

    values: dict[tuple[str, str], Sample] = field(default_factory=dict)
    problem: str = ""

    def add(self, family: Family, sample: Sample) -> None:
        dimension = sample.labels.get(family.dimension, "") if family.dimension else ""
        known = self.values.setdefault((family.name, dimension), sample)
        if known is not sample:
            self.problem = self.problem or (
                f"two series of {family.name} that differ in {_difference(known, sample)}: "
                "is the pod scraped twice?"
            )

    def check(self, key: _Key) -> None:
        if not all(key):
            raise _Unusable(
                f"its series carry no label '{NAMESPACE}' or '{POD}': "
                "mend the relabelling of the scrape configuration"
            )
        if self.problem:
            raise _Unusable(self.problem)

    def has(self, name: str) -> bool:
        return (name, "") in self.values

    def dimensions(self, name: str) -> list[str]:
        return sorted(dimension for family, dimension in self.values if family == name)

    def of(self, name: str, dimension: str = "") -> float:
        sample = self.values.get((name, dimension))
        if sample is None:
            wanted = f"{name} ('{dimension}')" if dimension else name
            raise _Unusable(f"there is no series of {wanted}")
        return sample.value


def collect(time: datetime, answers: Mapping[str, Sequence[Sample]]) -> Snapshot:
    """Return all evidence in the answers to the queries.

    A pod of which a series is missing, doubled or no number is not among the servers or probes;
    why not is among the unusable. One pod's trouble is never another's.

    Parameters
    ----------
    time
        The evaluation time of all answers.
    answers
        The series of each family, by the family's name.
    """
    unusable: dict[_Key, str] = {}
    return Snapshot(
        time=time,
        servers=_read(SERVER_FAMILIES, answers, partial(_totals, time), unusable),
        probes=_read(PROBE_FAMILIES, answers, _probe_totals, unusable),
        unusable=unusable,
    )


def _read(
    families: Sequence[Family],
    answers: Mapping[str, Sequence[Sample]],
    reading: Callable[[str, _Series], _Read],
    unusable: dict[_Key, str],
) -> dict[_Key, _Read]:
    """Return what is read of each pod; put into `unusable` why nothing is."""
    pods: dict[_Key, _Series] = {}
    for family in families:
        for sample in answers[family.name]:
            key = (sample.labels.get(NAMESPACE, ""), sample.labels.get(POD, ""))
            pods.setdefault(key, _Series()).add(family, sample)
    found: dict[_Key, _Read] = {}
    for key, series in pods.items():
        try:
            series.check(key)
            found[key] = reading(key[1], series)
        except (_Unusable, Incomparable) as problem:
            unusable[key] = f"pod {key[0]}/{key[1]}: {problem}"
    return found


def _totals(time: datetime, pod: str, series: _Series) -> Totals:
    """Return the counters of a server."""
    within, timed = _latencies(series)
    totals = Totals(
        pod=pod,
        time=time,
        succeeded=_count(series, contract.REQUESTS_TOTAL, contract.Outcome.OK),
        failed=sum(
            _count(series, contract.REQUESTS_TOTAL, outcome) for outcome in contract.FAULT_OUTCOMES
        ),
        images=_count(series, contract.IMAGES_TOTAL),
        measured=_count(series, contract.REQUEST_GPU_SECONDS_COUNT),
        gpu_seconds=series.of(contract.REQUEST_GPU_SECONDS_SUM),
        gpu_seconds_squares=series.of(contract.REQUEST_GPU_SECONDS_SQUARES_SUM),
        busy_seconds=series.of(contract.GPU_BUSY_SECONDS_TOTAL),
        timed=timed,
        within=within,
        out_of_memory=_count(series, contract.OOM_TOTAL),
        log_moments=_log_moments(series),
        peak_memory_share=_peak_memory_share(series),
        refused=_count(series, contract.REQUESTS_TOTAL, contract.Outcome.BUSY),
    )
    totals.check()
    # Every served request is in one class. A class that is missing in all families shows only here.
    classed = sum(moments.count for moments in totals.log_moments.values())
    if classed != timed:
        raise _Unusable(
            f"{contract.REQUEST_LOG_SECONDS_COUNT} has {classed} requests and "
            f"{contract.REQUEST_DURATION_BUCKET} has {timed}"
        )
    return totals


def _probe_totals(_: str, series: _Series) -> ProbeTotals:
    """Return the results of a probe; the deviation has no series before the first prompt."""
    deviation: float | None = None
    if series.has(contract.PROBE_REPEAT_PSD):
        deviation = series.of(contract.PROBE_REPEAT_PSD)
        if not 0 <= deviation < math.inf:
            raise _Unusable(f"{contract.PROBE_REPEAT_PSD} is {deviation}")
    loading = series.of(contract.PROBE_LOADING)
    if loading not in (0, 1):
        raise _Unusable(f"{contract.PROBE_LOADING} is {loading}")
    return ProbeTotals(
        repeat_prompts=_count(series, contract.PROBE_REPEAT_PROMPTS_TOTAL),
        repeat_deviation=deviation,
        loading=loading == 1,
        stable_served=_count(series, contract.PROBE_REQUEST_DURATION_COUNT, contract.Arm.STABLE),
        stable_missed=_count(series, contract.PROBE_SKIPPED_TOTAL, contract.Arm.STABLE),
        candidate_served=_count(
            series, contract.PROBE_REQUEST_DURATION_COUNT, contract.Arm.CANDIDATE
        ),
        candidate_missed=_count(series, contract.PROBE_SKIPPED_TOTAL, contract.Arm.CANDIDATE),
    )


def _count(series: _Series, name: str, dimension: str = "") -> int:
    return _whole(name, series.of(name, dimension))


def _whole(name: str, value: float) -> int:
    if not (value >= 0 and value.is_integer()):
        raise _Unusable(f"{name} is {value}")
    return int(value)


def _latencies(series: _Series) -> tuple[dict[int, int], int]:
    """Return the requests within each finite edge, in milliseconds, and all of them.

    Prometheus writes edges as it likes ("1", "1.0", "1e+02"), so they are compared as numbers.
    """
    name = contract.REQUEST_DURATION_BUCKET
    counts: dict[float, int] = {}
    for text in series.dimensions(name):
        try:
            edge = float(text)
        except ValueError:
            raise _Unusable(f"{name} has an edge '{text}'") from None
        if math.isnan(edge) or edge in counts:
            raise _Unusable(f"{name} has the edge '{text}' twice")
        counts[edge] = _count(series, name, text)
    timed = counts.pop(math.inf, None)
    if timed is None:
        raise _Unusable(f"there is no series of {name} ('+Inf')")
    ascending = [counts[edge] for edge in sorted(counts)]
    if ascending != sorted(ascending) or (ascending and ascending[-1] > timed):
        raise _Unusable(f"{name} falls from one edge to a higher one")
    return _by_millisecond(counts), timed


def _by_millisecond(counts: Mapping[float, int]) -> dict[int, int]:
    """Return the counts by whole milliseconds; limits are never in between."""
    result: dict[int, int] = {}
    for edge, count in counts.items():
        if not 0 < edge <= _LONGEST_EDGE:
            continue
        milliseconds = 1000 * edge
        nearest = round(milliseconds)
        if nearest >= 1 and abs(milliseconds - nearest) <= _ROUNDING:
            result[nearest] = count
    return result


def _log_moments(series: _Series) -> dict[str, LogMoments]:
    """Return the moments of all classes with requests; only those were asked for."""
    moments: dict[str, LogMoments] = {}
    for name in series.dimensions(contract.REQUEST_LOG_SECONDS_COUNT):
        if name not in _CLASSES:
            raise _Unusable(
                f"{contract.REQUEST_LOG_SECONDS_COUNT} has a class '{name}', which this operator "
                "does not know: update the operator"
            )
        moments[name] = LogMoments(
            _count(series, contract.REQUEST_LOG_SECONDS_COUNT, name),
            series.of(contract.REQUEST_LOG_SECONDS_SUM, name),
            series.of(contract.REQUEST_LOG_SECONDS_SQUARES_SUM, name),
        )
    return moments


def _peak_memory_share(series: _Series) -> float | None:
    """Return the largest share of the device's memory ever in use; on a CPU there is no device."""
    if not series.dimensions(contract.VRAM_BYTES):
        return None
    total = series.of(contract.VRAM_BYTES, DEVICE_MEMORY)
    if not 0 < total < math.inf:
        raise _Unusable(f"{contract.VRAM_BYTES} ('{DEVICE_MEMORY}') is {total}")
    return series.of(contract.VRAM_BYTES, PEAK_MEMORY) / total


def _difference(one: Sample, other: Sample) -> str:
    """Say in which labels two series differ, in the same words whichever comes first."""
    pairs = {
        name: sorted((one.labels.get(name, ""), other.labels.get(name, "")))
        for name in sorted({*one.labels, *other.labels})
    }
    return ", ".join(
        f"{name} ('{first}', '{second}')"
        for name, (first, second) in pairs.items()
        if first != second
    )
