"""The body of a request, read within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import NoReturn

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegen.contract import Outcome
from imagegen.errors import RequestRefusedError
from imagegen.server.jobs import given_up

__all__ = ["READ_SECONDS", "Bodies", "EarlyAnswers", "read_body"]

READ_SECONDS = 30.0
"""For the whole body: connections that trickle must not add up."""

_REST_SECONDS = 2.0
_REST_BYTES = 1 << 20
"""Read of a body after its answer, and thrown away."""


def _refuse(status: int, code: str, message: str) -> NoReturn:
    raise RequestRefusedError(outcome=Outcome.INVALID, status=status, code=code, message=message)


class Bodies:
    """Bounds the memory of all bodies that are not accepted work yet, beyond what each may have.

    Ordinary bodies are always taken: the number of connections bounds them. So is a larger one
    while there is no other.

    Parameters
    ----------
    most
        Bytes of all together, without the ordinary ones of each.
    ordinary
        Bytes of each that are not counted.
    """

    def __init__(self, most: int, *, ordinary: int) -> None:
        self.most = most
        self.taken = 0
        self._ordinary = ordinary

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Give what is to be told the size of a body, in bytes, before it has it.

        It raises a :class:`RequestRefusedError` with status 503 when there is no room.
        """
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(0, size - self._ordinary - held)
            if self.taken > held and self.taken + more > self.most:
                raise RequestRefusedError(
                    outcome=Outcome.BUSY,
                    status=503,
                    code="too_many_bodies",
                    message="large bodies of other requests are being read; try again later",
                    retry_after=1,
                )
            held += more
            self.taken += more

        try:
            yield grow
        finally:
            self.taken -= held


async def read_body(request: Request, *, most: int, grow: Callable[[int], None]) -> bytes:
    """Read a JSON body.

    Parameters
    ----------
    request
        The request, unread.
    most
        Bytes that the body must not exceed.
    grow
        Told how many bytes the body will have after each of its parts; see :class:`Bodies`.

    Raises
    ------
    RequestRefusedError
        Status 415 if the body claims to be anything but plain JSON, 413 if it is too large, 408 if
        it does not arrive in time, 499 if the client goes away; and what `grow` raises.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    # Tools such as `kubectl create --raw` name no type. Browsers would send such a body to any
    # server for any page, and say from which.
    unnamed = "content-type" not in request.headers and "origin" not in request.headers
    if kind.strip().lower() != "application/json" and not unnamed:
        _refuse(415, "unsupported_media_type", "the body's Content-Type must be application/json")
    charset = parameters.strip().lower().replace('"', "")
    if charset not in {"", "charset=utf-8"}:
        _refuse(415, "unsupported_media_type", "the body's charset must be utf-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        _refuse(415, "unsupported_media_type", "the body must not be compressed")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        _refuse(413, "body_too_large", f"the body must not exceed {most} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most:
                    _refuse(413, "body_too_large", f"the body must not exceed {most} bytes")
                grow(len(body) + len(chunk))
                body += chunk
    except ClientDisconnect:
        raise given_up(Outcome.CANCELLED) from None
    except TimeoutError:
        _refuse(408, "body_too_slow", f"the body must arrive within {READ_SECONDS:g} s")
    return bytes(body)


class EarlyAnswers:
    """Hangs up after an answer that is given before the end of its request's body.

    The answer goes out whole at once and says that the connection ends with it. Then the rest of
    the body is read for a moment: a client that is cut off while it sends may lose the answer.

    Parameters
    ----------
    app
        What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request as `app` does."""
        read = not _has_body(Headers(scope=scope))

        async def receive_part() -> Message:
            nonlocal read
            message = await receive()
            read = read or not message.get("more_body", False)
            return message

        async def send_part(message: Message) -> None:
            if read:
                await send(message)
            elif message["type"] == "http.response.start":
                hang_up = (b"connection", b"close")
                await send({**message, "headers": [*message["headers"], hang_up]})
            else:
                await send({**message, "more_body": True})
                if not message.get("more_body", False):
                    await _read_rest(receive)
                    await send({"type": message["type"]})

        await self._app(scope, receive_part, send_part)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _read_rest(receive: Receive) -> None:
    count, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REST_SECONDS):
            while more and count <= _REST_BYTES:
                message = await receive()
                count += len(message.get("body", b""))
                more = message.get("more_body", False)
