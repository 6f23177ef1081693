"""The two ports of a server: one for the API, one for metrics alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from imagegen.contract import StartupFailureCode
from imagegen.errors import StartupError
from imagegen.server.connections import IDLE_SECONDS, BoundedProtocol
from imagegen.server.scrapes import metrics_route

__all__ = ["http_port", "metrics_port"]

_CLOSING_SECONDS = 2


@contextlib.contextmanager
def metrics_port(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Give metrics, apart from all other requests: whatever keeps those waiting can be seen here.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    app = Starlette(routes=[metrics_route(registry)])
    with _answering(app, _listen("--metrics-port", host, port), "metrics"):
        yield


@contextlib.contextmanager
def http_port(host: str, port: int, app: Starlette) -> Iterator[None]:
    """Answer HTTP.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    with _answering(app, _listen("--port", host, port), "http"):
        yield


@contextlib.contextmanager
def _answering(app: Starlette, listener: socket.socket, name: str) -> Iterator[None]:
    """Run a server in a thread of its own: the main thread keeps the signals."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            http=BoundedProtocol,
            log_config=None,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
            timeout_keep_alive=IDLE_SECONDS,
        )
    )
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        # Idle connections are closed at once; answers on their way have a moment.
        server.should_exit = True
        thread.join(_CLOSING_SECONDS + 1)
        listener.close()


def _listen(option: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only of a socket that says it is TCP does asyncio know not to hold back the end of an answer
    # until the client has confirmed its beginning, 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartupError(
            StartupFailureCode.PORT_UNAVAILABLE, f"{option} {port} cannot be used: {error.strerror}"
        ) from error
    return listener
