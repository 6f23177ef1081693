"""Measure what only an accelerator shows: speed, memory, repeats, cancelling, and the incident.

Models have the sizes of SDXL or SD3.5 Medium and random weights. Everything is done by the engine
that the server uses, and kept in benchmarks/results-serving with the device's name.

    python -m benchmarks.serving.accelerator [--architecture sdxl] [--side 1024]

Without a CUDA device it refuses, unless the models are made narrow: that shows that the
measurements run, and its figures mean nothing.

    python -m benchmarks.serving.accelerator --shrink 32 --side 64 --most 2
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serving.__main__ import RESULTS, table
from benchmarks.serving.full_size import ARCHITECTURES, make
from benchmarks.serving.processes import machine
from benchmarks.serving.studies import Figure
from imagegen.engines.base import Batch, Generated, GenerationSettings, Images
from imagegen.engines.diffusers.loading import load_diffusers
from imagegen.engines.folder import check_folder
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.errors import DeviceMemoryError, GenerationCancelledError
from imagegen.quality.stability import pixel_stability_deviation
from imagegen.server.memory import driver_version
from imagegen.server.watchdog import to_pixels

STEPS = 20
GIB = 2**30
REPEATS = 3
CANCELLED_CALLS = 7

UNCAPPED_STEPS = 100
"""What a request asks for in the incident: nothing stops it before, the cap does afterwards."""

CAPPED_STEPS = 40
TIMED_STEPS = 4
"""All steps of a batch cost the same: of so many, the time of any number follows."""


def engine_of(folder: Path, side: int, *, most: int, **options: Any) -> Any:
    """Load an engine as the server does."""
    demand = Demand(
        width=side,
        height=side,
        steps=STEPS,
        guidance_scale=5.0,
        max_steps=UNCAPPED_STEPS,
        max_batch_size=most,
    )
    return load_diffusers(check_folder(folder), DiffusersSettings(folder, **options), demand)


def batch_of(side: int, count: int, steps: int = STEPS) -> Batch:
    """Give a batch with the seeds 0, 1, ..."""
    settings = GenerationSettings(side, side, steps, 5.0)
    return Batch(("a red kite",) * count, tuple(range(count)), settings)


def _on_gpu() -> bool:
    return torch.cuda.is_available()


def _begin() -> None:
    """Let what earlier calls held not count."""
    if _on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> float:
    """Give the GiB of device memory held at most; without a device, of the process ever."""
    if _on_gpu():
        return torch.cuda.max_memory_reserved() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def made(engine: Any, batch: Batch) -> tuple[Generated, float, float]:
    """Make pictures; give them, the seconds and the GiB of memory at most."""
    _begin()
    began = time.perf_counter()
    result = engine.generate(batch, should_stop=lambda: False)
    return result, time.perf_counter() - began, _peak()


def psnr(one: Images, other: Images) -> float:
    """Give the peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((one - other) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


# -- speed -----------------------------------------------------------------------------------------
def speed(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Batches of one and of many in half precision, cancelling, and a real lack of memory."""
    side, most = options.side, options.most
    engine = engine_of(folder, side, most=most)
    made(engine, batch_of(side, most))
    solo = made(engine, batch_of(side, 1))[0].images
    figures = []
    for count in dict.fromkeys((1, most)):
        result, seconds, memory = made(engine, batch_of(side, count))
        name = f"BFloat16, batch {count}, {STEPS} steps"
        figures += [
            Figure("speed", name, count / seconds, "images/s"),
            Figure("speed", f"{name}: memory", memory, "GiB"),
            Figure(
                "speed", f"{name}: picture 0 against batch 1", psnr(result.images[:1], solo), "dB"
            ),
        ]
    figures += _cancelling(engine, side, most)
    return figures + (_out_of_memory(engine, side) if _on_gpu() else [])


def _cancelling(engine: Any, side: int, count: int) -> list[Figure]:
    """Give batches up at moments all over a call; a device still ends what it was given."""
    result, seconds, _ = made(engine, batch_of(side, count))
    took = []
    for place in range(CANCELLED_CALLS):
        gone = threading.Event()
        when: list[float] = []

        def leave(gone: threading.Event = gone, when: list[float] = when) -> None:
            when.append(time.perf_counter())
            gone.set()

        timer = threading.Timer(seconds * (place + 0.5) / (CANCELLED_CALLS + 2), leave)
        timer.start()
        try:
            engine.generate(batch_of(side, count), should_stop=gone.is_set)
        except GenerationCancelledError:
            took.append(time.perf_counter() - when[0])
        timer.join()
    if not took:
        return []
    name = f"a batch of {count} is given up"
    return [
        Figure("cancelling", f"{name}: calls of {CANCELLED_CALLS}", len(took), "calls"),
        Figure("cancelling", f"{name}: median", statistics.median(took), "s"),
        Figure("cancelling", f"{name}: longest", max(took), "s"),
        Figure("cancelling", f"a step of {count}", statistics.median(result.steps), "s"),
    ]


def _out_of_memory(engine: Any, side: int) -> list[Figure]:
    """Let the device really run out: all but a little of its memory is forbidden to torch."""
    one = made(engine, batch_of(side, 1))[2]
    four = made(engine, batch_of(side, 4))[2]
    total = torch.cuda.get_device_properties(0).total_memory / GIB
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((one + four) / 2 / total)
    ran_out = same = False
    try:
        expected = made(engine, batch_of(side, 1))[0].images
        try:
            made(engine, batch_of(side, 4))
        except DeviceMemoryError:
            ran_out = True
        first = batch_of(side, 4).halves()[0].halves()[0]
        again = engine.generate(first, should_stop=lambda: False).images
        same = bool((again == expected).all())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return [
        Figure("lack of memory", "a batch of 4 ran out of memory", float(ran_out), "yes = 1"),
        Figure("lack of memory", "split to 1, bits as before", float(same), "yes = 1"),
    ]


# -- the incident ----------------------------------------------------------------------------------
def incident(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Ask for very many steps, before and after precision, batch and steps are bounded."""
    cases = (("before", "Float32", 8, UNCAPPED_STEPS), ("after", "BFloat16", 2, CAPPED_STEPS))
    figures = []
    for name, precision, count, steps in cases:
        engine = engine_of(folder, options.side, most=count, precision=precision)
        what = f"{name}: {precision}, batch {count}, {steps} steps"
        batch = batch_of(options.side, count, TIMED_STEPS)
        try:
            made(engine, batch)
            result, seconds, memory = made(engine, batch)
        except DeviceMemoryError:
            figures.append(Figure("incident", f"{what}: ran out of memory", 1.0, "yes = 1"))
            del engine
            _begin()
            continue
        step = statistics.median(result.steps)
        whole = seconds + (steps - TIMED_STEPS) * step
        figures += [
            Figure("incident", f"{what}: time of a batch", whole, "s"),
            Figure("incident", f"{what}: time of a step", step, "s"),
            Figure("incident", f"{what}: memory", memory, "GiB"),
            Figure(
                "incident",
                f"{what}: cost per image at {options.price_per_hour:g} an hour",
                whole / 3600 * options.price_per_hour / count,
                "price",
            ),
        ]
        del engine
        _begin()
    return figures


# -- repeats ---------------------------------------------------------------------------------------
def repeats(folder: Path, options: argparse.Namespace, *, deterministic: bool) -> list[Figure]:
    """Make the same batch again and again, and tell how much pictures differ, as the probe does."""
    engine = engine_of(folder, options.side, most=2, deterministic=deterministic)
    batch = batch_of(options.side, 2)
    made(engine, batch)
    runs, times = [], []
    for _ in range(REPEATS):
        result, seconds, _ = made(engine, batch)
        runs.append(result.images)
        times.append(seconds)
    worst = max(
        pixel_stability_deviation(to_pixels(images[place]) for images in runs)
        for place in range(len(batch))
    )
    mode = "deterministic" if deterministic else "usual"
    difference = max(float(np.abs(images - runs[0]).max()) for images in runs)
    return [
        Figure("repeats", f"{mode}, batch 2: PSD of {REPEATS} runs", worst, "of 1"),
        Figure("repeats", f"{mode}, batch 2: greatest difference", difference, "of 1"),
        Figure("repeats", f"{mode}, batch 2", 2 / statistics.median(times), "images/s"),
    ]


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[Figure]]] = {
    "speed": speed,
    "incident": incident,
    "repeats": lambda folder, options: repeats(folder, options, deterministic=False),
    "deterministic": lambda folder, options: repeats(folder, options, deterministic=True),
}
"""Each is a process of its own: deterministic algorithms are for a whole process."""


# -- the command -----------------------------------------------------------------------------------
def where() -> str:
    """Name the device, its driver, the libraries and the machine."""
    device = "no CUDA device"
    if _on_gpu():
        name, driver = torch.cuda.get_device_name(0), driver_version("cuda:0") or "unknown"
        device = f"{name}, driver {driver}, CUDA {torch.version.cuda}"
    return f"{device}, torch {torch.__version__}, {machine()}"


def as_json(figures: list[Figure]) -> list[dict[str, Any]]:
    """Give figures as JSON takes them; the infinite likeness of equal pictures is null."""
    return [
        {**asdict(one), "value": one.value if math.isfinite(one.value) else None} for one in figures
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.accelerator")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="sd35-medium")
    parser.add_argument("--side", type=int, default=1024, help="of the square pictures")
    parser.add_argument("--most", type=int, default=8, help="the largest batch")
    parser.add_argument("--price-per-hour", type=float, default=1.0, help="of the device")
    parser.add_argument("--shrink", type=int, default=1, help="divisor of all widths, up to 32")
    parser.add_argument("--results", type=Path, help="default: results-serving/, if not shrunk")
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def _in_processes(folder: Path, options: argparse.Namespace, arguments: list[str]) -> list[Figure]:
    figures = []
    for part in options.only or PARTS:
        command = [sys.executable, "-m", "benchmarks.serving.accelerator", *arguments]
        told = subprocess.run(  # noqa: S603 - our own command
            [*command, "--part", part, "--folder", str(folder)], check=True, stdout=subprocess.PIPE
        )
        for one in json.loads(told.stdout.splitlines()[-1]):
            value = math.inf if one["value"] is None else one["value"]
            figures.append(Figure(**{**one, "value": value}))
    return figures


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    if not _on_gpu() and options.shrink == 1:
        print(
            "there is no CUDA device here, and nothing else shows these figures; --shrink 32 "
            "--side 64 tries the measurements with narrow models",
            file=sys.stderr,
        )
        return 3
    if options.part is not None:
        print(json.dumps(as_json(PARTS[options.part](options.folder, options))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make(options.architecture, Path(folder), shrink=options.shrink)
        figures = _in_processes(Path(folder), options, arguments)
    narrow = "" if options.shrink == 1 else f", widths divided by {options.shrink}"
    told = f"{options.architecture}{narrow}, {options.side}x{options.side}, {where()}"
    print(table(told, figures))
    results = options.results
    if results is None and options.shrink == 1:
        results = RESULTS / f"accelerator-{options.architecture}.json"
    if results is not None:
        results.parent.mkdir(exist_ok=True)
        kept = {"machine": told, "figures": as_json(figures)}
        results.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
