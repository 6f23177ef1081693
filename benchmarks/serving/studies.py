"""What is measured; every study gives rows of figures and says what they mean."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import load
from benchmarks.serving.processes import Process, serve

__all__ = ["STUDIES", "Figure", "Scale"]

SEED = 1
"""Of the weights: the bare pipeline and the server hold the same model."""


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    study: str
    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Scale:
    """How much is run, and where models are kept meanwhile."""

    folder: Path
    quick: bool

    def of(self, full: int, quick: int) -> int:
        """Choose a number of repetitions."""
        return quick if self.quick else full


def _body(number: int) -> dict[str, Any]:
    return {"prompt": f"kite number {number}", "seed": number}


def _model(scale: Scale, size: str) -> Path:
    """Make a model with random weights."""
    from imagegen.miniature.tiny import make_tiny  # noqa: PLC0415 - imports torch

    folder = scale.folder / size
    if not folder.exists():
        make_tiny("sd", seed=SEED, out=folder, scale=size)
    return folder


@contextmanager
def _pipeline(
    folder: Path, *, side: int, steps: int, most: int, more: str = ""
) -> Iterator[Process]:
    arguments = f"""--model {folder} --precision Float32 --steps {steps} --guidance-scale 5
        --width {side} --height {side} --max-steps {steps} --max-pixels {side * side}
        --max-batch-size {most} --queue-capacity 64 {more}"""
    with serve(arguments) as process:
        yield process


# -- overhead --------------------------------------------------------------------------------------
def _bare(folder: Path, *, side: int, steps: int) -> Callable[[int], None]:
    """Give a call of the pipeline itself, for a batch of so many, with one thread as the server."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def call(count: int) -> None:
        with torch.inference_mode():
            pipeline(
                prompt=["a kite"] * count,
                width=side,
                height=side,
                num_inference_steps=steps,
                guidance_scale=5.0,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(count)],
            )

    return call


@dataclass(frozen=True)
class _Took:
    wall: float
    cpu: float


def _bare_took(call: Callable[[int], None], batches: int, most: int) -> _Took:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        call(most)
    return _Took(time.perf_counter() - wall, time.process_time() - cpu)


def _served_took(process: Process, requests: int, at_once: int) -> _Took:
    cpu = process.cpu_seconds()
    answers, wall = load.clients(process.url, at_once, requests=requests, body=_body)
    if any(answer.status != 200 for answer in answers):
        raise RuntimeError(f"not all were served: {answers}")
    return _Took(wall, process.cpu_seconds() - cpu)


def overhead(scale: Scale) -> list[Figure]:
    """Compare the server with its pipeline, turn about: a busy machine is as busy for both."""
    side, steps, most = 64, 10, 4
    rounds = scale.of(20, 3)
    folder = _model(scale, "small")
    call = _bare(folder, side=side, steps=steps)
    call(1)
    call(most)
    figures = []
    with _pipeline(folder, side=side, steps=steps, most=most) as process:
        _served_took(process, 8, 8)
        for at_once, batch in ((1, 1), (8, most)):
            requests = max(at_once, 2)
            pairs = [
                (
                    _bare_took(call, requests // batch, batch),
                    _served_took(process, requests, at_once),
                )
                for _ in range(rounds)
            ]
            name = f"{at_once} at once"
            wall = statistics.median(served.wall / bare.wall for bare, served in pairs)
            cpu = sum(served.cpu for _, served in pairs) / sum(bare.cpu for bare, _ in pairs)
            step = min(bare.wall for bare, _ in pairs) / (requests // batch) / steps
            figures += [
                Figure("overhead", f"a step of the bare pipeline, {name}", step * 1000, "ms"),
                Figure("overhead", f"time, server / bare, {name}", wall, "ratio"),
                Figure("overhead", f"processor time, server / bare, {name}", cpu, "ratio"),
            ]
    return figures


# -- batching --------------------------------------------------------------------------------------
def batching(scale: Scale) -> list[Figure]:
    """Compare images per second of eight clients with and without dynamic batches."""
    folder = _model(scale, "tiny")
    requests = scale.of(160, 24)
    kinds = {
        "one by one": (1, "--batch-window-ms 0"),
        "batches of 4, no window": (4, "--batch-window-ms 0"),
        "batches of 4, window of 5 ms": (4, "--batch-window-ms 5"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(scale.of(3, 1)):  # turn about, as above
        for name, (most, more) in kinds.items():
            with _pipeline(folder, side=32, steps=10, most=most, more=more) as process:
                _served_took(process, 8, 8)
                speeds[name].append(requests / _served_took(process, requests, 8).wall)
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    alone = medians["one by one"]
    return [
        Figure("batching", f"images per second against one by one: {name}", each / alone, "ratio")
        for name, each in medians.items()
    ]


# -- overload --------------------------------------------------------------------------------------
def overload(scale: Scale) -> list[Figure]:
    """Send twice of what the server can do, which is declared: a call takes 50 ms."""
    call_seconds, bound = 0.05, 1.0
    arguments = """--engine synthetic --synthetic {"base_seconds":0.05} --width 64 --height 64
        --steps 2 --guidance-scale 5 --max-steps 2 --max-pixels 4096 --queue-capacity 1000
        --queue-seconds 1"""
    seconds = float(scale.of(60, 8))
    with serve(arguments) as process:
        load.clients(process.url, 1, requests=10, body=_body)
        answers = load.arrivals(
            process.url, per_second=2 / call_seconds, seconds=seconds, body=_body
        )
    served = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer.seconds for answer in answers if answer.status == 429]
    others = len(answers) - len(served) - len(refused)
    capacity = seconds / call_seconds
    return [
        Figure("overload", "declared bound of waiting work", bound, "s"),
        Figure("overload", "p50 of admitted requests", load.percentile(served, 0.5), "s"),
        Figure("overload", "p99 of admitted requests", load.percentile(served, 0.99), "s"),
        Figure("overload", "p99 of refusals", load.percentile(refused, 0.99), "s"),
        Figure("overload", "refused with 429", len(refused) / len(answers), "share"),
        Figure("overload", "any other answer", others, "requests"),
        Figure("overload", "served against capacity", len(served) / capacity, "ratio"),
    ]


# -- memory ----------------------------------------------------------------------------------------
def memory(scale: Scale) -> list[Figure]:
    """Watch the resident memory over thousands of requests."""
    requests = scale.of(2000, 200)
    folder = _model(scale, "tiny")
    figures = []
    synthetic = """--engine synthetic --width 64 --height 64 --steps 2 --guidance-scale 5
        --max-steps 2 --max-pixels 4096 --max-batch-size 4"""
    kinds: dict[str, Callable[[], AbstractContextManager[Process]]] = {
        "synthetic": lambda: serve(synthetic),
        "tiny SD": lambda: _pipeline(folder, side=32, steps=2, most=4),
    }
    for name, start in kinds.items():
        with start() as process:
            held = []
            for _ in range(10):
                _served_took(process, requests // 10, 4)
                held.append(process.resident_bytes() / 1e6)
        figures += [
            Figure("memory", f"{name}: resident after {requests // 10} requests", held[0], "MB"),
            Figure("memory", f"{name}: resident after {requests} requests", held[-1], "MB"),
            Figure("memory", f"{name}: growth over the last half", held[-1] - held[4], "MB"),
        ]
    return figures


STUDIES: dict[str, Callable[[Scale], list[Figure]]] = {
    "overhead": overhead,
    "batching": batching,
    "overload": overload,
    "memory": memory,
}
