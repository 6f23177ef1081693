"""What verdicts cost: microseconds, a share of a core, and the time to import the package."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar

import numpy as np

from benchmarks.study import Scale, Study
from benchmarks.tables import Table, View, markdown
from modelrollout.api.gate_types import Gate, QueryGate, TextAccuracyGate
from modelrollout.api.spec import Analysis
from modelrollout.gates.blocks import Blocks
from modelrollout.gates.evidence import Comparison, Evidence, PairedScores, ProbeTotals
from modelrollout.gates.judge import KINDS, evaluate, latency_edges
from modelrollout.gates.look import Look
from modelrollout.gates.totals import LogMoments, Totals

__all__ = ["ANALYSIS", "GATES", "STUDY", "evidence_of", "gates_of"]

GATES: Final[dict[str, dict[str, object]]] = {
    "latency, absolute": {"latency": {"percentile": 95, "maxMilliseconds": 1700}},
    "latency, against stable": {"latency": {"maxIncreasePercent": 10}},
    "errors": {"errors": {"maxPercent": "1"}},
    "out of memory": {"outOfMemory": {"maxCount": 0}},
    "out of memory, against stable": {"outOfMemory": {"maxCount": 9, "maxTimesStable": 2}},
    "GPU memory": {"gpuMemory": {"maxPercent": 92}},
    "cost": {"cost": {"maxPerImage": "0.002"}},
    "cost, against stable": {"cost": {"maxIncreasePercent": 15}},
    "stability": {"stability": {"kind": "Repeat", "max": "0.002"}},
    "text accuracy": {"textAccuracy": {"minPercent": 90}},
    "text accuracy, against stable": {"textAccuracy": {"maxDropPercent": 3}},
    "query": {"query": {"template": "queue-depth", "max": "20"}},
}
_Given = TypeVar("_Given")

_FOUR: Final = ("latency, absolute", "latency, against stable", "errors", "cost")
_ROLLOUTS: Final = 1000
_TICK_SECONDS: Final = 10.0
_CLASSES: Final = 4
_SEEDS: Final = 2
_WORDS: Final = 6
_LOOKS: Final = 300
_STARTS: Final = 7
_BEGAN: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
ANALYSIS: Final = Analysis(min_requests=30, max_requests=300)


class _LaterGate(Gate):
    """A gate with the kinds that the custom resource does not have yet."""

    text_accuracy: TextAccuracyGate | None = None
    query: QueryGate | None = None


def _totals(pod: str, requests: int, random: np.random.Generator) -> Totals:
    """Return counters after so many requests, some of them slow, failed, or out of memory."""
    seconds = np.exp(0.35 * random.standard_normal(requests))
    slow = int((seconds > 1.7).sum())
    classes = np.arange(requests) % _CLASSES
    logs = np.log(1000 * seconds)
    return Totals(
        pod=pod,
        time=_BEGAN,
        succeeded=requests,
        failed=int(random.binomial(requests, 0.002)),
        images=requests,
        measured=requests,
        gpu_seconds=float(seconds.sum()),
        gpu_seconds_squares=float((seconds**2).sum()),
        busy_seconds=float(seconds.sum()),
        timed=requests,
        within={1700: requests - slow},
        out_of_memory=0,
        log_moments={
            f"class {index}": LogMoments(
                int((classes == index).sum()),
                float(logs[classes == index].sum()),
                float((logs[classes == index] ** 2).sum()),
            )
            for index in range(_CLASSES)
        },
        peak_memory_share=0.8,
    )


def _read(requests: int, random: np.random.Generator) -> PairedScores:
    """Return scores of about as many pictures as there were requests."""
    prompts = 1 + requests // _SEEDS
    candidate, stable = (
        {
            f"prompt {index}": row
            for index, row in enumerate(
                (random.binomial(_WORDS, 0.95, (prompts, _SEEDS)) / _WORDS).tolist()
            )
        }
        for _ in range(2)
    )
    return PairedScores(candidate, stable)


def evidence_of(requests: int, random: np.random.Generator) -> Evidence:
    """Return evidence of a candidate after so many requests, and of stable after four times."""
    candidate = _totals("candidate", requests, random)
    stable = _totals("stable", 4 * requests, random)
    baseline = replace(_totals("candidate", 0, random), log_moments={})
    return Evidence(
        baseline=baseline,
        latest=candidate,
        probe=ProbeTotals(repeat_prompts=12, repeat_deviation=0.0004, loading=True),
        container_out_of_memory=0,
        gpu_hour_price=Decimal("1.80"),
        gpu_count=1,
        comparison=Comparison(candidate, stable),
        text_accuracy=_read(requests, random),
        queries={"queue-depth": 3.0},
    )


def gates_of(names: tuple[str, ...]) -> list[Gate]:
    """Return the named gates of `GATES`."""
    return [
        _LaterGate.model_validate({"name": f"gate-{index}", **GATES[name]})
        for index, name in enumerate(names)
    ]


def _microseconds(work: Callable[[_Given], object], given: Iterable[_Given]) -> float:
    """Return the median time of one call, over a growing trial."""
    times = []
    for each in given:
        began = time.perf_counter()
        work(each)
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


def _look(evidence: Evidence) -> Look:
    return Look.at(evidence, ANALYSIS, tests=1)


def _verdict_of(gate: Gate) -> Callable[[Look], object]:
    return partial(KINDS[type(gate.criterion)].judge, gate.criterion)


def _costs() -> list[tuple[str, float]]:
    random = np.random.default_rng(9)
    looks = [evidence_of(requests, random) for requests in range(1, _LOOKS + 1)]
    costs = [("the look that all gates of a rollout share", _microseconds(_look, looks))]
    for name in GATES:
        (gate,) = gates_of((name,))
        costs.append((name, _microseconds(_verdict_of(gate), map(_look, looks))))
    four = gates_of(_FOUR)
    costs.append(
        ("a rollout of four gates", _microseconds(partial(evaluate, four, ANALYSIS), looks))
    )
    edges = latency_edges(four)

    def blocks(evidence: Evidence) -> object:
        assert evidence.latest is not None
        added = Blocks().add(evidence.latest, evidence.comparison, edges)
        return added.design_effects(evidence.latest, evidence.comparison, edges)

    costs.append(("blocks and design effects", _microseconds(blocks, looks)))
    return costs


def _import_seconds(module: str) -> float:
    """Return the shortest time of a fresh interpreter that imports a module, less an empty one.

    The code is compiled before, as that of an installed package is.
    """
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def start(code: str) -> float:
            began = time.perf_counter()
            subprocess.run(  # noqa: S603 - our own interpreter and code
                [sys.executable, "-c", code], check=True, env=environment
            )
            return time.perf_counter() - began

        empty = min(start("pass") for _ in range(_STARTS))
        return min(start(f"import {module}") for _ in range(_STARTS)) - empty


def _memory_kib() -> float:
    """Return what the counters of one rollout take in memory, both arms, in KiB."""
    random = np.random.default_rng(9)
    evidence_of(10, random)
    tracemalloc.start()
    kept = [replace(evidence_of(100, random), text_accuracy=None) for _ in range(100)]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / 1024 / len(kept)


def _run(_: Scale) -> list[Table]:
    costs = _costs()
    per_rollout = dict(costs)["a rollout of four gates"] + costs[-1][1]
    package = _import_seconds("modelrollout.gates.judge")
    special = _import_seconds("scipy.special")
    rows: list[tuple[str | float | int | None, ...]] = [
        *((f"{name}", round(value, 1), "µs") for name, value in costs),
        (
            "1,000 rollouts of four gates, part of a core per 10 s tick",
            round(100 * per_rollout * 1e-6 * _ROLLOUTS / _TICK_SECONDS, 2),
            "%",
        ),
        ("import of modelrollout.gates.judge", round(package, 3), "s"),
        ("import of scipy.special", round(special, 3), "s"),
        ("evidence of one rollout in memory", round(_memory_kib(), 1), "KiB"),
    ]
    return [Table("speed", ("what", "value", "unit"), rows)]


def _view(table: Table) -> str:
    return markdown(
        ("what", "measured"),
        [(str(row["what"]), f"{row['value']} {row['unit']}") for row in table.where()],
    )


STUDY: Final = Study("speed", _run, (View("speed", "speed", _view),))
