"""A load generator: clients that wait for their answers, and arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import httpx

__all__ = ["Answer", "arrivals", "clients", "percentile"]

_PATH = "/v1/images/generations"
_PATIENCE_SECONDS = 300.0

Body = Callable[[int], dict[str, Any]]
"""Gives the fields of request number so."""


@dataclass(frozen=True)
class Answer:
    """An answer and the seconds that it took."""

    status: int
    seconds: float


def percentile(values: Sequence[float], share: float) -> float:
    """Give the smallest value that a share of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def _ask(http: httpx.AsyncClient, fields: dict[str, Any]) -> Answer:
    began = time.perf_counter()
    answer = await http.post(_PATH, json=fields)
    return Answer(answer.status_code, time.perf_counter() - began)


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    # Nothing is encrypted: to read certificates would take as long as an answer.
    return httpx.AsyncClient(
        base_url=url,
        timeout=_PATIENCE_SECONDS,
        limits=limits,
        verify=False,  # noqa: S501
    )


def clients(url: str, count: int, *, requests: int, body: Body) -> tuple[list[Answer], float]:
    """Send requests from so many clients, each of which waits for its answer.

    Returns
    -------
    tuple
        All answers, and the seconds from the first request to the last answer.
    """

    async def run() -> tuple[list[Answer], float]:
        numbers = iter(range(requests))
        async with _client(url) as http:

            async def one() -> list[Answer]:
                return [await _ask(http, body(number)) for number in numbers]

            began = time.perf_counter()
            answers = await asyncio.gather(*(one() for _ in range(count)))
            return list(chain(*answers)), time.perf_counter() - began

    return asyncio.run(run())


def arrivals(url: str, *, per_second: float, seconds: float, body: Body) -> list[Answer]:
    """Send requests at a fixed rate, however slow the answers are."""

    async def run() -> list[Answer]:
        async with _client(url) as http:
            began = time.perf_counter()
            tasks = []
            for number in range(round(per_second * seconds)):
                await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                tasks.append(asyncio.create_task(_ask(http, body(number))))
            return await asyncio.gather(*tasks)

    return asyncio.run(run())
