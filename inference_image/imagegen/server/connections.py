"""Connections that bring no request or take no answer, within bounds.

uvicorn bounds how large the head of a request may be, and how long a connection may be idle between
requests; not how long a head is on its way, nor an answer, nor how many connections there are.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagegen.server import body
from imagegen.server.forms import error_body

__all__ = ["IDLE_SECONDS", "SPARE", "BoundedProtocol", "FewConnections"]

IDLE_SECONDS = 120
"""Longer than proxies keep connections: of two sides that may end one, only the one that sends
requests can do it without losing any."""

SPARE: Final = "on_a_spare_connection"
"""Set in the state of a request for which there is no more time than to say how the server is."""

_HEAD_SECONDS = 10.0
_ANSWER_SECONDS = 300.0
_SPARE_CONNECTIONS = 32


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 on one connection; hangs up on who does not come to the point.

    A connection may be idle for 120 s, takes 10 s at most for the head of a request and 300 s for
    an answer. When there are too many, of those without a whole request the one that is due next
    makes room. If all have one, the new connection is a spare one, for a single answer; of too many
    spare ones the oldest makes room.
    """

    most_connections: ClassVar = 512
    """Far more than requests may wait; with all others, fewer than the 1,024 files that a process
    may often open."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._due: asyncio.TimerHandle | None = None
        self._body_due_at = math.inf
        self._head_has_begun = False
        self.made_at = math.inf
        self.is_spare = False
        self.is_dropped = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self._hang_up_in(IDLE_SECONDS)
        others = [
            one
            for one in self.connections
            if isinstance(one, BoundedProtocol) and one is not self and not one.is_dropped
        ]
        spare = [one for one in others if one.is_spare]
        if len(others) - len(spare) < self.most_connections:
            return
        late = min(set(others) - set(spare), key=lambda one: one.request_due_at)
        if late.request_due_at < math.inf:
            late.drop()
            return
        self.is_spare = True
        self.app_state = {**self.app_state, SPARE: True}
        if len(spare) >= _SPARE_CONNECTIONS:
            min(spare, key=lambda one: one.made_at).drop()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and see whether it completes a head."""
        super().data_received(data)
        if self.is_spare and self.cycle is not None:
            self.cycle.keep_alive = False
        if self.is_sending:
            return
        if self.conn.their_state is not h11.IDLE:
            if self._due is not None:
                self._await_body()
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
            self._await_body()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Say that what came is not HTTP, in the form of all errors."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # there is an answer already
            self.transport.abort()
            return
        told = json.dumps(error_body(400, msg, "invalid_http")).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(told))),
            ("Connection", "close"),
        ]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (answer, h11.Data(data=told), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def request_due_at(self) -> float:
        """When a whole request has to be there; infinite while there is one, or its answer."""
        if self.is_sending:
            return math.inf
        if self.conn.their_state is h11.SEND_BODY:
            return self._body_due_at
        return math.inf if self._due is None else self._due.when()

    def drop(self) -> None:
        """Close the connection to make room for another one."""
        self.is_dropped = True
        self._stop_waiting()
        self.transport.abort()

    @property
    def is_sending(self) -> bool:
        """Whether there is more of an answer than the kernel takes before the client reads."""
        return self.transport.get_write_buffer_size() > 0

    def _await_body(self) -> None:
        """Leave it to the application how long it waits for a body."""
        self._stop_waiting()
        self._body_due_at = self.loop.time() + body.READ_SECONDS

    def _hang_up_in(self, seconds: float) -> None:
        self._stop_waiting()
        self._due = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due, self._head_has_begun = None, False


class FewConnections(BoundedProtocol):
    """The same for a port that only monitoring asks."""

    most_connections = 64
