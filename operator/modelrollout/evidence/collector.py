"""From the series that Prometheus returned to a snapshot: pure, and wary of every value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from imagegen import contract
from modelrollout.evidence.queries import (
    NAMESPACE,
    POD,
    PROBE_FAMILIES,
    REVISION,
    ROLLOUT,
    SERVER_FAMILIES,
    Family,
)
from modelrollout.gates.evidence import Incomparable, ProbeTotals, Snapshot, Totals

__all__ = ["Sample", "collect"]

_LONGEST_EDGE: Final = 1e6
"""Seconds; a limit is never beyond it."""

_ROUNDING: Final = 1e-6
"""What a number of milliseconds may be off a whole one, as 1.7 is no exact binary fraction."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at the evaluation time."""

    labels: Mapping[str, str]
    value: float


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

    def of(self, name: str, dimension: str = "") -> float:
        sample = self.values.get((name, dimension))
        if sample is None:
            wanted = f"{name} ('{dimension}')" if dimension else name
            raise _Missing(wanted)
        return sample.value


class _Missing(Exception):
    """A series that the metric contract promises is absent."""


def collect(time: datetime, answers: Mapping[str, Sequence[Sample]]) -> Snapshot:
    """Return all evidence in the answers to the queries.

    A pod of which a counter is missing, doubled or no number is not among the servers; why not is
    among the unusable. One pod's trouble is never another's.

    Parameters
    ----------
    time
        The evaluation time of all answers.
    answers
        The series of each family, by the family's name.
    """
    pods: dict[tuple[str, str], _Series] = {}
    for family in SERVER_FAMILIES:
        for sample in answers[family.name]:
            key = (sample.labels.get(NAMESPACE, ""), sample.labels.get(POD, ""))
            pods.setdefault(key, _Series()).add(family, sample)
    servers: dict[tuple[str, str], Totals] = {}
    unusable: dict[tuple[str, str], str] = {}
    for key, series in pods.items():
        found = _totals(key, time, series)
        if isinstance(found, Totals):
            servers[key] = found
        else:
            unusable[key] = f"pod {key[0]}/{key[1]}: {found}"
    return Snapshot(time=time, servers=servers, probes=_probes(answers), unusable=unusable)


def _totals(key: tuple[str, str], time: datetime, series: _Series) -> Totals | str:
    """Return the counters of a pod, or why there are none."""
    if not all(key):
        return (
            f"its series carry no label '{NAMESPACE}' or '{POD}': "
            "mend the relabelling of the scrape configuration"
        )
    if series.problem:
        return series.problem
    try:
        within, timed = _latencies(series)
        totals = Totals(
            pod=key[1],
            time=time,
            succeeded=_count(series, contract.REQUESTS_TOTAL, contract.Outcome.OK),
            failed=sum(
                _count(series, contract.REQUESTS_TOTAL, outcome)
                for outcome in contract.FAULT_OUTCOMES
            ),
            images=_count(series, contract.IMAGES_TOTAL),
            measured=_count(series, contract.REQUEST_GPU_SECONDS_COUNT),
            gpu_seconds=series.of(contract.REQUEST_GPU_SECONDS_SUM),
            gpu_seconds_squares=series.of(contract.REQUEST_GPU_SECONDS_SQUARES_SUM),
            busy_seconds=series.of(contract.GPU_BUSY_SECONDS_TOTAL),
            timed=timed,
            within=within,
            out_of_memory=_count(series, contract.OOM_TOTAL),
        )
        totals.check()
    except _Missing as missing:
        return f"there is no series of {missing}"
    except (_NotACount, Incomparable) as error:
        return str(error)
    return totals


class _NotACount(Exception):
    """A counter has a value that counting does not give."""


def _count(series: _Series, name: str, dimension: str = "") -> int:
    return _whole(name, series.of(name, dimension))


def _whole(name: str, value: float) -> int:
    if not (value >= 0 and value.is_integer()):
        raise _NotACount(f"{name} is {value}")
    return int(value)


def _latencies(series: _Series) -> tuple[dict[int, int], int]:
    """Return the requests within each finite edge, in milliseconds, and all of them.

    Prometheus writes edges as it likes ("1", "1.0", "1e+02"), so they are compared as numbers.
    """
    name = contract.REQUEST_DURATION_BUCKET
    counts: dict[float, int] = {}
    for (family, text), sample in series.values.items():
        if family != name:
            continue
        try:
            edge = float(text)
        except ValueError:
            raise _NotACount(f"{name} has an edge '{text}'") from None
        if math.isnan(edge) or edge in counts:
            raise _NotACount(f"{name} has the edge '{text}' twice")
        counts[edge] = _whole(name, sample.value)
    timed = counts.pop(math.inf, None)
    if timed is None:
        raise _Missing(f"{name} ('+Inf')")
    ascending = [counts[edge] for edge in sorted(counts)]
    if ascending != sorted(ascending) or (ascending and ascending[-1] > timed):
        raise _NotACount(f"{name} falls from one edge to a higher one")
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


def _probes(answers: Mapping[str, Sequence[Sample]]) -> dict[tuple[str, str, str], ProbeTotals]:
    """Return the results of probes.

    While one probe replaces another, two report on the same candidate: the larger deviation holds,
    and the prompts of the one that got further.
    """
    prompts_family, deviation_family = PROBE_FAMILIES
    prompts = _largest(prompts_family, answers)
    deviations = _largest(deviation_family, answers)
    results: dict[tuple[str, str, str], ProbeTotals] = {}
    for key, value in prompts.items():
        deviation = deviations.get(key)
        if value is None or (key in deviations and deviation is None):
            continue  # a value that is none: no evidence, which never passes
        results[key] = ProbeTotals(repeat_prompts=int(value), repeat_deviation=deviation)
    return results


def _largest(
    family: Family, answers: Mapping[str, Sequence[Sample]]
) -> dict[tuple[str, str, str], float | None]:
    """Return the largest value for each candidate; None where any of its values is none."""
    largest: dict[tuple[str, str, str], float | None] = {}
    for sample in answers[family.name]:
        labels = sample.labels
        key = (labels.get(NAMESPACE, ""), labels.get(ROLLOUT, ""), labels.get(REVISION, ""))
        if not all(key):
            continue
        usable = 0 <= sample.value < math.inf and (not family.whole or sample.value.is_integer())
        before = largest.get(key, 0.0)
        largest[key] = max(before, sample.value) if usable and before is not None else None
    return largest


def _difference(one: Sample, other: Sample) -> str:
    """Say in which labels two series differ."""
    names = sorted(
        name
        for name in {*one.labels, *other.labels}
        if one.labels.get(name) != other.labels.get(name)
    )
    return ", ".join(
        f"{name} ('{one.labels.get(name, '')}', '{other.labels.get(name, '')}')" for name in names
    )
