"""``imagegen probe``: the phases in order, then metrics until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import start_http_server

from imagegen.contract import Arm, ExitCode
from imagegen.probe.client import ProbeClient
from imagegen.probe.metrics import ProbeMetrics
from imagegen.probe.phases import drive_load, measure_repeats, wait_until_ready
from imagegen.probe.schedule import load_schedule
from imagegen.probe.suite import Prompt, load_suite

__all__ = ["ProbeSettings", "run_probe"]


@dataclass(frozen=True)
class ProbeSettings:
    """All that ``imagegen probe`` is told; times in seconds, the rate in requests per second."""

    candidate: str
    stable: str | None
    rate: float
    requests: int | None
    repeat_prompts: int
    repeats: int
    suite: str
    host: str
    metrics_port: int
    max_in_flight: Mapping[Arm, int]
    timeout_seconds: float
    ready_seconds: float
    repeat_seconds: float


STABLE_REPEAT_SECONDS = 60.0
"""Most time for the repeats of stable, on which no verdict rests."""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's own output


async def run_phases(
    settings: ProbeSettings, prompts: tuple[Prompt, ...], metrics: ProbeMetrics
) -> None:
    """Run all phases once; failures of the servers are counted, never raised."""
    # The candidate first: what ails stable must not keep a candidate from being measured.
    addresses = {Arm.CANDIDATE: settings.candidate, Arm.STABLE: settings.stable}
    patience = {Arm.CANDIDATE: settings.repeat_seconds}
    clients = {
        arm: ProbeClient(url, timeout_seconds=settings.timeout_seconds)
        for arm, url in addresses.items()
        if url is not None
    }
    try:
        missing = await wait_until_ready(clients, seconds=settings.ready_seconds)
        _say(f"ready: {'not ' + ', '.join(missing) if missing else 'all arms'}")
        chosen = prompts[: settings.repeat_prompts]
        for arm, client in clients.items():
            measured = await measure_repeats(
                arm,
                client,
                chosen,
                repeats=settings.repeats,
                deadline=time.monotonic() + patience.get(arm, STABLE_REPEAT_SECONDS),
                metrics=metrics,
            )
            largest = metrics.largest(arm)
            shown = "not measured" if largest is None else f"largest PSD {largest:.6f}"
            _say(f"repeats: {arm} {measured} of {len(chosen)} prompts, {shown}")
        shots = load_schedule(prompts, rate=settings.rate, count=settings.requests)
        count = "requests until told to end" if settings.requests is None else settings.requests
        _say(f"load: {count} per arm at {settings.rate:g}/s")
        metrics.loading()
        await drive_load(clients, shots, max_in_flight=settings.max_in_flight, metrics=metrics)
    finally:
        for client in clients.values():
            await client.close()
    metrics.done()
    _say("done: metrics are served until SIGTERM")


async def _run(settings: ProbeSettings, prompts: tuple[Prompt, ...], metrics: ProbeMetrics) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    phases = asyncio.create_task(run_phases(settings, prompts, metrics))
    stopped = asyncio.create_task(stop.wait())
    either: set[asyncio.Task[Any]] = {phases, stopped}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if phases.done():
        phases.result()
        await stopped
        return
    phases.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await phases


def run_probe(settings: ProbeSettings) -> int:
    """Run ``imagegen probe`` until SIGTERM; give the exit code."""
    metrics = ProbeMetrics()
    try:
        prompts = load_suite(settings.suite)
        server, thread = start_http_server(
            settings.metrics_port, addr=settings.host, registry=metrics.registry
        )
    except (OSError, ValueError) as error:
        print(f"imagegen probe: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return ExitCode.USAGE
    try:
        asyncio.run(_run(settings, prompts, metrics))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return ExitCode.DRAINED
