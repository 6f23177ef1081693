"""The metrics as Prometheus reads them."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imagegen import contract

__all__ = ["metrics_route"]


def metrics_route(registry: CollectorRegistry) -> Route:
    """Build the path that gives all series of a registry, in the format that is asked for."""

    async def metrics(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        # In a thread: whatever else the loop serves does not wait for it.
        text = await asyncio.to_thread(encode, registry)
        return Response(text, headers={"Content-Type": kind})

    return Route(contract.METRICS_PATH, metrics, methods=["GET"])
