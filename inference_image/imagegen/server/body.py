"""The body of a request, read within bounds."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from starlette.requests import ClientDisconnect, Request

from imagegen.contract import Outcome
from imagegen.errors import RequestRefusedError
from imagegen.server.jobs import given_up

__all__ = ["read_body"]

_READ_SECONDS = 30.0
"""For the whole body: connections that trickle must not add up."""


def _refuse(status: int, code: str, message: str) -> NoReturn:
    raise RequestRefusedError(outcome=Outcome.INVALID, status=status, code=code, message=message)


async def read_body(request: Request, *, most: int) -> bytes:
    """Read a JSON body.

    Parameters
    ----------
    request
        The request, unread.
    most
        Bytes that the body must not exceed.

    Raises
    ------
    RequestRefusedError
        Status 415 if the body claims to be anything but plain JSON, 413 if it is too large, 408 if
        it does not arrive in time, 499 if the client goes away.
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
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    _refuse(413, "body_too_large", f"the body must not exceed {most} bytes")
    except ClientDisconnect:
        raise given_up(Outcome.CANCELLED) from None
    except TimeoutError:
        _refuse(408, "body_too_slow", f"the body must arrive within {_READ_SECONDS:g} s")
    return bytes(body)
