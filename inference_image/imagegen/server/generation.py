"""One request from its arrival to its answer."""

from __future__ import annotations

import asyncio
import base64
import io
import secrets
import time
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image

from imagegen.contract import Outcome, request_class
from imagegen.engines.base import Images
from imagegen.errors import RequestRefusedError
from imagegen.server.admission import Answer, Job
from imagegen.server.metrics import Served
from imagegen.server.state import ServerState
from imagegen.server.validation import MAX_SEED, ImageRequest

__all__ = ["generate", "image_seeds"]


def image_seeds(seed: int | None, count: int) -> tuple[int, ...]:
    """Give every image its own seed: image `i` has ``(seed + i) mod 2^32``, also on its own."""
    first = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
    return tuple((first + index) % (MAX_SEED + 1) for index in range(count))


async def _read_body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RequestRefusedError(
                outcome=Outcome.INVALID,
                status=413,
                code="body_too_large",
                message=f"the body must not exceed {most} bytes",
            )
    return bytes(body)


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _png(picture: NDArray[np.float32]) -> str:
    pixels = (picture * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _encode(images: list[Images]) -> list[str]:
    return [_png(picture) for batch in images for picture in batch]


async def _wait(request: Request, job: Job, state: ServerState) -> Answer:
    """Wait for the worker, or give the job up when the client leaves or the deadline passes."""
    left: asyncio.Future[None] = asyncio.create_task(_client_left(request))
    either: set[asyncio.Future[Any]] = {left, job.done}
    seconds = max(0.0, job.deadline - time.monotonic())
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if job.done.done():
            return job.done.result()
        if left.done():
            job.abandoned.set()
        if state.admission.discard(job):
            outcome, status, code = (
                (Outcome.CANCELLED, 499, "cancelled")
                if left.done()
                else (Outcome.TIMEOUT, 504, "deadline_exceeded")
            )
            state.metrics.failed(outcome, status, job.work)
            raise RequestRefusedError(
                outcome=outcome,
                status=status,
                code=code,
                message="the request waited too long for its turn; try again later",
            )
        # The worker has it: it stops at the next step boundary and does the counting.
        return await job.done
    finally:
        left.cancel()


def _response(
    request: ImageRequest, seeds: tuple[int, ...], answer: Answer, pictures: list[str]
) -> dict[str, Any]:
    settings = request.settings
    sizes = [size for size in answer.batch_sizes for _ in range(size)]
    common = {
        "revised_prompt": None,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "size": f"{settings.width}x{settings.height}",
    }
    return {
        "created": int(time.time()),
        "data": [
            {"b64_json": picture, "seed": seed, "batch_size": size, **common}
            for picture, seed, size in zip(pictures, seeds, sizes, strict=True)
        ],
        "output_format": "png",
        "size": common["size"],
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "batch_size": max(answer.batch_sizes),
    }


async def generate(request: Request, state: ServerState) -> dict[str, Any]:
    """Serve ``POST /v1/images/generations``.

    Raises
    ------
    RequestRefusedError
        For everything that is not an answer with pictures; it has been counted.
    """
    arrived = time.monotonic()
    loop = asyncio.get_running_loop()
    try:
        rules = state.rules()
        body = await _read_body(request, state.settings.limits.max_body_bytes)
        wanted = rules.check(body)
        job = Job(
            request=wanted,
            seeds=image_seeds(wanted.seed, wanted.count),
            arrived=arrived,
            deadline=arrived + state.settings.request_timeout_seconds,
            loop=loop,
            done=loop.create_future(),
        )
        state.admission.put(job)
    except RequestRefusedError as refusal:
        state.metrics.refused(refusal.outcome, refusal.status)
        raise
    answer = await _wait(request, job, state)
    began = time.monotonic()
    pictures = await asyncio.to_thread(_encode, answer.images)
    response = _response(wanted, job.seeds, answer, pictures)
    ended = time.monotonic()
    state.metrics.served(
        Served(
            width=wanted.settings.width,
            height=wanted.settings.height,
            steps=wanted.settings.steps,
            images=wanted.count,
            request_class=request_class(
                wanted.request_class_size, wanted.request_class_steps, wanted.count
            ),
            duration_seconds=ended - arrived,
            postprocess_seconds=ended - began,
        ),
        answer.work,
    )
    return response
