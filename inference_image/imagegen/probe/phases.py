"""What a probe does: wait until the servers are ready, measure repeats, then drive load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

from imagegen.contract import Arm, ProbeOutcome
from imagegen.probe.client import Picture, ProbeClient
from imagegen.probe.metrics import ProbeMetrics
from imagegen.probe.schedule import Shot
from imagegen.probe.suite import Prompt
from imagegen.quality.stability import pixel_stability_deviation

__all__ = ["drive_load", "measure_repeats", "wait_until_ready"]

_PAUSE_SECONDS = 0.5

MOST_FAILURES = 5
"""Failures in a row after which repeats are given up: the load that follows shows how many of a
server's answers fail, and nothing would if the probe went on asking for repeats."""


async def wait_until_ready(clients: dict[Arm, ProbeClient], *, seconds: float) -> list[Arm]:
    """Wait until every server is ready, at most `seconds`; give the arms that are not."""
    deadline = time.monotonic() + seconds
    while True:
        missing = [arm for arm, client in clients.items() if not await client.is_ready()]
        if not missing or time.monotonic() >= deadline:
            return missing
        await asyncio.sleep(_PAUSE_SECONDS)


async def measure_repeats(
    arm: Arm,
    client: ProbeClient,
    prompts: Sequence[Prompt],
    *,
    repeats: int,
    deadline: float,
    metrics: ProbeMetrics,
) -> int:
    """Make every prompt's picture several times and compare the pictures.

    A failed request is counted and tried again, a few times; a prompt counts only when all of its
    repeats are there.

    Parameters
    ----------
    arm, client
        The server.
    prompts
        The prompts, each with its seed.
    repeats
        Pictures per prompt, at least 2.
    deadline
        Monotonic time in seconds at which what is not measured stays so.
    metrics
        Where results go.

    Returns
    -------
    int
        Prompts that were measured.
    """
    measured = failures = 0
    for prompt in prompts:
        pictures: list[Picture] = []
        while len(pictures) < repeats:
            if time.monotonic() >= deadline or failures == MOST_FAILURES:
                return measured
            picture = await client.picture(prompt.prompt, prompt.seed, alone=True)
            if picture is None or (pictures and picture.shape != pictures[0].shape):
                metrics.ended(arm, ProbeOutcome.ERROR)
                failures += 1
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            metrics.ended(arm, ProbeOutcome.OK)
            failures = 0
            pictures.append(picture)
        metrics.repeated(arm, [pixel_stability_deviation(pictures)])
        measured += 1
    return measured


async def drive_load(
    clients: dict[Arm, ProbeClient],
    shots: Iterable[Shot],
    *,
    max_in_flight: Mapping[Arm, int],
    metrics: ProbeMetrics,
) -> None:
    """Send requests at their scheduled moments, without waiting for answers.

    Durations count from the scheduled moment, so that a late probe does not flatter a server. An
    arm with `max_in_flight` open requests misses its turn; the other arm does not. The limit of the
    stable arm is low: it serves users, whom a queue of the probe's requests would keep waiting.
    """
    began = time.monotonic()
    open_requests: dict[Arm, set[asyncio.Task[None]]] = {arm: set() for arm in clients}

    async def send(arm: Arm, shot: Shot) -> None:
        picture = await clients[arm].picture(shot.prompt.prompt, shot.seed)
        if picture is None:
            metrics.ended(arm, ProbeOutcome.ERROR)
            return
        metrics.ended(arm, ProbeOutcome.OK)
        metrics.took(arm, time.monotonic() - began - shot.at_seconds)

    try:
        for shot in shots:
            await asyncio.sleep(max(0.0, began + shot.at_seconds - time.monotonic()))
            for arm, tasks in open_requests.items():
                if len(tasks) >= max_in_flight[arm]:
                    metrics.skipped(arm)
                    continue
                task = asyncio.create_task(send(arm, shot))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*(task for tasks in open_requests.values() for task in tasks))
    finally:
        for task in [task for tasks in open_requests.values() for task in tasks]:
            task.cancel()
