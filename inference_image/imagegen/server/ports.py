"""The two ports of a server: one for the API, one for metrics alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware

from imagegen.contract import StartupFailureCode
from imagegen.errors import StartupError
from imagegen.server.body import EarlyAnswers
from imagegen.server.connections import IDLE_SECONDS, BoundedProtocol, FewConnections
from imagegen.server.scrapes import metrics_route

__all__ = ["Port", "http_port", "metrics_port"]

_CLOSING_SECONDS = 2
_MOST_AT_ONCE = 128
"""Connections that are taken before those that make room for them are closed."""


class Port:
    """An open port, whose server runs in a thread of its own: the main thread keeps the signals.

    Parameters
    ----------
    app
        What answers.
    listener
        Bound, and closed in the end.
    name
        Of the thread.
    protocol
        Bounds the connections.
    """

    def __init__(
        self,
        app: Starlette,
        listener: socket.socket,
        name: str,
        protocol: type[BoundedProtocol] = BoundedProtocol,
    ) -> None:
        self._listener = listener
        self._server = _PatientServer(
            uvicorn.Config(
                app,
                access_log=False,
                backlog=_MOST_AT_ONCE,
                http=protocol,
                log_config=None,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_CLOSING_SECONDS,
                timeout_keep_alive=IDLE_SECONDS,
                ws="none",  # whatever else it would be, it would be out of the protocol's bounds
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=name, daemon=True
        )
        self._thread.start()

    def close(self, seconds: float = 0.0) -> bool:
        """Close the port and its connections when clients have read their answers.

        Parameters
        ----------
        seconds
            How long clients may read; a last 2 s come on top of it.

        Returns
        -------
        bool
            Whether all answers have been sent.
        """
        self._server.patience_ends = time.monotonic() + seconds
        self._server.should_exit = True
        self._thread.join(max(seconds, 0.0) + _CLOSING_SECONDS + 1)
        self._listener.close()
        return self._server.has_sent_all and not self._thread.is_alive()


class _PatientServer(uvicorn.Server):
    """Ends when clients have read their answers, however slowly, up to a time.

    uvicorn has one limit for all that may delay the end. A client that reads deserves more of it
    than one that has only just connected.
    """

    patience_ends = 0.0
    has_sent_all = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait, still answering whoever asks, and end."""
        while self._is_sending() and time.monotonic() < self.patience_ends:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # no event tells when the kernel has it all
        await super().shutdown(sockets)
        self.has_sent_all = not self._is_sending()

    def _is_sending(self) -> bool:
        return any(
            one.is_sending
            for one in self.server_state.connections
            if isinstance(one, BoundedProtocol)
        )


@contextlib.contextmanager
def metrics_port(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Give metrics, apart from all other requests: whatever keeps those waiting can be seen here.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    app = Starlette(routes=[metrics_route(registry)], middleware=[Middleware(EarlyAnswers)])
    with _answering(app, _listen("--metrics-port", host, port), "metrics", FewConnections):
        yield


@contextlib.contextmanager
def http_port(host: str, port: int, app: Starlette) -> Iterator[Port]:
    """Answer HTTP; give the port, which may be closed before the end.

    Raises
    ------
    StartupError
        With code ``PortUnavailable``.
    """
    with _answering(app, _listen("--port", host, port), "http") as opened:
        yield opened


@contextlib.contextmanager
def _answering(
    app: Starlette,
    listener: socket.socket,
    name: str,
    protocol: type[BoundedProtocol] = BoundedProtocol,
) -> Iterator[Port]:
    port = Port(app, listener, name, protocol)
    try:
        yield port
    finally:
        port.close()


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
            StartupFailureCode.PORT_UNAVAILABLE,
            f"{option} {port} of --host {host} cannot be used: {error.strerror}",
        ) from error
    return listener
