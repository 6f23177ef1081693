"""The two ports of a server: one for the API, one for metrics alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from prometheus_client import CollectorRegistry, start_http_server
from starlette.applications import Starlette

from imagegen.contract import StartupFailureCode
from imagegen.errors import StartupError
from imagegen.server.connections import BoundedProtocol

__all__ = ["http_port", "metrics_port"]

_CLOSING_SECONDS = 2


@contextlib.contextmanager
def metrics_port(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Serve metrics in threads of their own.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise _unavailable("--metrics-port", port, error) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def http_port(host: str, port: int, app: Starlette) -> Iterator[None]:
    """Answer HTTP in a thread of its own: the main thread keeps the signals.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    listener = _listen(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            http=BoundedProtocol,
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
    )
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        # Idle connections are closed at once; answers on their way have a moment.
        server.should_exit = True
        thread.join(_CLOSING_SECONDS + 1)
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only of a socket that says it is TCP does asyncio know not to hold back the end of an answer
    # until the client has confirmed its beginning, 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _unavailable("--port", port, error) from error
    return listener


def _unavailable(option: str, port: int, error: OSError) -> StartupError:
    return StartupError(
        StartupFailureCode.PORT_UNAVAILABLE, f"{option} {port} cannot be used: {error.strerror}"
    )
