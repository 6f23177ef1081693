"""Connections that bring no request or take no answer, within bounds.

uvicorn bounds how large the head of a request may be, and how long a connection may be idle between
requests; not how long a head is on its way, nor an answer, nor how many connections there are.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["IDLE_SECONDS", "BoundedProtocol"]

IDLE_SECONDS = 120
"""Longer than proxies keep connections: of two sides that may end one, only the one that sends
requests can do it without losing any."""

_HEAD_SECONDS = 10.0
_ANSWER_SECONDS = 300.0
_MOST_CONNECTIONS = 512
"""Far more than requests may wait, and fewer than the files that a process may open."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection; hangs up on who does not come to the point.

    A connection may be idle for 120 s, takes 10 s at most for the head of a request and 300 s for
    an answer. When there are too many, the one that is next to be closed for want of a request
    makes room.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._due: asyncio.TimerHandle | None = None
        self._head_has_begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._hang_up_in(IDLE_SECONDS)
        if len(self.connections) > _MOST_CONNECTIONS:
            ours = [one for one in self.connections if isinstance(one, BoundedProtocol)]
            min(ours, key=lambda one: one.request_due_at).make_room()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and see whether it completes a head."""
        super().data_received(data)
        if self.is_sending:
            return
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif not self._head_has_begun:
            self._hang_up_in(_HEAD_SECONDS)
            self._head_has_begun = True

    def on_response_complete(self) -> None:
        """Begin to wait until the answer is taken, and for the next request."""
        super().on_response_complete()
        if self.is_sending:
            self._hang_up_in(_ANSWER_SECONDS)
        elif self.conn.their_state is h11.IDLE:
            self._hang_up_in(IDLE_SECONDS)
        else:  # the next one had been sent before the answer
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def request_due_at(self) -> float:
        """When there has to be a request; infinite while there is one, or its answer."""
        return math.inf if self._due is None or self.is_sending else self._due.when()

    def make_room(self) -> None:
        """Close the connection, if there is no request."""
        if self.request_due_at < math.inf:
            self._stop_waiting()
            self.transport.abort()

    @property
    def is_sending(self) -> bool:
        """Whether there is more of an answer than the kernel takes before the client reads."""
        return self.transport.get_write_buffer_size() > 0

    def _hang_up_in(self, seconds: float) -> None:
        self._stop_waiting()
        self._due = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._head_has_begun = None, False
