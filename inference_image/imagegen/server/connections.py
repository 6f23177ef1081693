"""Connections that do not say what they want, within bounds.

uvicorn bounds how large the head of a request may be, and how long a connection may be idle between
requests; not how long a head may be on its way, nor how many connections there are.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BoundedProtocol"]

_HEAD_SECONDS = 10.0
_MOST_CONNECTIONS = 512
"""Far more than requests may wait, and fewer than the files that a process may open."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection; hangs up on who does not come to the point.

    Within 10 s of being opened, or of the last answer, a connection has to bring the whole head of
    a request. When there are too many, the one that has been due to longest makes room.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > _MOST_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and see whether it completes a head."""
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, unless it is there already."""
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def due_at(self) -> float:
        """When the head of a request has to be there; infinite while there is a request."""
        return math.inf if self._due is None else self._due.when()

    def hang_up(self) -> None:
        """Close the connection, unless there is a request."""
        if self._due is not None:
            self._stop_waiting()
            self.transport.abort()

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._due is None:
            self._due = self.loop.call_later(_HEAD_SECONDS, self.hang_up)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _make_room(self) -> None:
        ours = [one for one in self.connections if isinstance(one, BoundedProtocol)]
        min(ours, key=lambda one: one.due_at).hang_up()
