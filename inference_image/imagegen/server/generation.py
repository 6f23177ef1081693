"""One request from its arrival to its answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from imagegen.contract import Outcome, request_class
from imagegen.errors import RequestRefusedError
from imagegen.server.body import read_body
from imagegen.server.connections import SPARE
from imagegen.server.jobs import Job, Made, given_up
from imagegen.server.metrics import Served
from imagegen.server.pictures import inspect
from imagegen.server.state import ServerState
from imagegen.server.validation import MAX_SEED, ImageRequest
from imagegen.server.watchdog import Expected

__all__ = ["generate", "image_seeds"]

_LOG = logging.getLogger(__name__)

_ENCODERS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="encode")
"""Checks and encodes pictures; the libraries let go of the interpreter for most of it."""


@dataclass(frozen=True)
class _Encoded:
    """A picture as it is delivered."""

    png: str
    made: Made
    seed: int


def image_seeds(seed: int | None, count: int) -> tuple[int, ...]:
    """Give every image its own seed: image `i` has ``(seed + i) mod 2^32``, also on its own."""
    first = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
    return tuple((first + index) % (MAX_SEED + 1) for index in range(count))


async def generate(request: Request, state: ServerState, identity: str) -> dict[str, Any]:
    """Serve ``POST /v1/images/generations``.

    Parameters
    ----------
    request
        The request, unread.
    state
        The server's.
    identity
        What the log knows the request by.

    Raises
    ------
    RequestRefusedError
        For everything that is not an answer with pictures; it has been counted.
    """
    arrived = time.monotonic()
    try:
        job = await _admit(request, state, arrived)
        job.identity = identity
    except RequestRefusedError as refusal:
        state.metrics.refused(refusal.outcome, refusal.status)
        raise
    try:
        return await _serve(request, job, state)
    finally:
        state.accepted_ended()


async def _serve(request: Request, job: Job, state: ServerState) -> dict[str, Any]:
    made = await _wait(request, job, state)
    began = time.monotonic()
    try:
        images = await _encode(job, made, state)
    except RequestRefusedError as refusal:
        state.metrics.failed(refusal.outcome, refusal.status, job.work)
        raise
    except Exception:  # who answers counts the request, but does not know what it took
        state.metrics.wasted(job.work.busy_seconds, "error")
        raise
    wanted = job.request
    answer = _answer(wanted, images, state)
    ended = time.monotonic()
    state.metrics.served(
        Served(
            width=wanted.settings.width,
            height=wanted.settings.height,
            steps=0 if "num_inference_steps" in state.unused_fields else wanted.settings.steps,
            images=wanted.count,
            request_class=request_class(
                wanted.request_class_size, wanted.request_class_steps, wanted.count
            ),
            duration_seconds=ended - job.arrived,
            postprocess_seconds=ended - began,
        ),
        job.work,
    )
    return answer


async def _admit(request: Request, state: ServerState, arrived: float) -> Job:
    rules = state.rules()
    if getattr(request.state, SPARE, False):
        raise RequestRefusedError(
            outcome=Outcome.BUSY,
            status=503,
            code="too_many_connections",
            message="too many connections are open; try again later",
            retry_after=1,
        )
    loop = asyncio.get_running_loop()
    with state.bodies.one() as grow:
        body = await _whole_body(request, state, most=rules.max_body_bytes, grow=grow)
        if rules.upscales:  # decoding the source would keep all others waiting
            wanted = await loop.run_in_executor(_ENCODERS, rules.check, body, request.headers)
        else:
            wanted = rules.check(body, request.headers)
        del body
    longest = state.settings.request_timeout_seconds
    job = Job(
        request=wanted,
        seeds=image_seeds(wanted.seed, wanted.count),
        arrived=arrived,
        deadline=arrived + min(longest, wanted.timeout_seconds or longest),
        loop=loop,
        done=loop.create_future(),
    )
    state.accept(job)
    return job


async def _whole_body(
    request: Request, state: ServerState, *, most: int, grow: Callable[[int], None]
) -> bytes:
    """Read the body of a request that is not accepted work yet: a server that closes lets it go."""
    loop = asyncio.get_running_loop()

    def let_go() -> None:
        reading.cancel()

    with state.arriving(lambda: loop.call_soon_threadsafe(let_go)):
        reading = asyncio.create_task(read_body(request, most=most, grow=grow))
        try:
            return await reading
        except asyncio.CancelledError:
            state.rules()  # says why, if it was the server
            raise


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _wait(request: Request, job: Job, state: ServerState) -> list[Made]:
    """Wait for the worker, or give the job up when the client leaves or the deadline passes."""
    left: asyncio.Future[None] = asyncio.create_task(_client_left(request))
    either: set[asyncio.Future[Any]] = {left, job.done}
    seconds = max(0.0, job.deadline - time.monotonic())
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if job.done.done():
            return job.done.result()
        refusal = given_up(Outcome.CANCELLED if left.done() else Outcome.TIMEOUT)
        if state.admission.leave(job, refusal.outcome):
            state.metrics.failed(refusal.outcome, refusal.status, job.work)
        elif job.finished:
            return await job.done
        # The worker has it: it goes on without, stops if nobody else waits, and does the counting.
        job.done.cancel()
        raise refusal
    finally:
        left.cancel()


async def _encode(job: Job, made: Sequence[Made], state: ServerState) -> list[_Encoded]:
    """Check all pictures, and encode them.

    Raises
    ------
    RequestRefusedError
        Status 500, if one of them is broken.
    """
    settings = job.request.settings
    expected = Expected(settings.width, settings.height, state.settings.watchdog)
    loop = asyncio.get_running_loop()
    results = await asyncio.gather(
        *(loop.run_in_executor(_ENCODERS, inspect, each.picture, expected) for each in made)
    )
    failures = [check for check, _ in results if check is not None]
    for check in failures:
        state.metrics.rejected(check)
    if failures:
        _LOG.warning("request %s: broken images: %s", job.identity, ", ".join(failures))
        raise RequestRefusedError(
            outcome=Outcome.WATCHDOG,
            status=500,
            code="image_broken",
            message=f"the model made a broken image ({failures[0]}); it is not delivered",
        )
    return [
        _Encoded(png, each, seed)
        for (_, png), each, seed in zip(results, made, job.seeds, strict=True)
    ]


def _answer(
    request: ImageRequest, images: Sequence[_Encoded], state: ServerState
) -> dict[str, Any]:
    """Tell what had an effect; null for what the model decides on by itself."""
    unused = state.unused_fields
    settings = request.settings
    common = {
        "size": f"{settings.width}x{settings.height}",
        "steps": None if "num_inference_steps" in unused else settings.steps,
        "guidance_scale": None if "guidance_scale" in unused else settings.guidance_scale,
        "scheduler": settings.scheduler or state.scheduler or None,
    }
    return {
        "created": int(time.time()),
        "data": [
            {
                "b64_json": image.png,
                "revised_prompt": None,
                "seed": None if "seed" in unused else image.seed,
                "batch_size": image.made.batch_size,
                "batch_index": image.made.batch_index,
                "degraded": list(image.made.degraded),
                **common,
            }
            for image in images
        ],
        "background": "opaque",
        "output_format": "png",
        "batch_size": max(image.made.batch_size for image in images),
        **common,
    }
