"""One call of the API: what is sent, what may be sent again, and what an answer means."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from imagegen.contract import Outcome
from imagegen.engines.base import Picture
from imagegen.engines.hosted.settings import HostedSettings, read_key
from imagegen.engines.pictures import read_base64
from imagegen.errors import RequestRefusedError

__all__ = ["Upstream"]

_MOST_BODY_BYTES: Final = 64 << 20
_MOST_PIXELS: Final = 4096 * 4096
_CONNECT_SECONDS: Final = 10.0
_RETRIES: Final = 2
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 10.0
_MOST_MESSAGE_CHARACTERS: Final = 300
_LONGEST_ASKED_SECONDS: Final = 999_999
_POOL: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""As many connections as calls: none waits for another one."""

_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 200, 400, 401, 403
_TOO_LARGE, _TOO_MANY, _UNAVAILABLE = 413, 429, 503
_REDIRECTS: Final = range(300, 400)


def _refusal(
    outcome: Outcome, status: int, code: str, message: str, *, retry_after: int | None = None
) -> RequestRefusedError:
    return RequestRefusedError(
        outcome=outcome, status=status, code=code, message=message, retry_after=retry_after
    )


def _failed(code: str, message: str) -> RequestRefusedError:
    return _refusal(Outcome.ERROR, 500, code, message)


class _TryAgainError(Exception):
    """The API has done nothing: the same call may be sent once more.

    Parameters
    ----------
    refusal
        What is told if it is not.
    wait
        Seconds that the API asked for, if it did.
    """

    def __init__(self, refusal: RequestRefusedError, wait: float | None) -> None:
        super().__init__()
        self.refusal = refusal
        self.wait = wait


class _Body:
    """The body of one call, which knows whether it has been sent: before, nothing can be made.

    Parameters
    ----------
    fields
        What is in it.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._text = json.dumps(fields).encode()
        self.is_sent = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers that describe it."""
        return {"Content-Type": "application/json", "Content-Length": str(len(self._text))}

    async def parts(self) -> AsyncIterator[bytes]:
        """Give it to a connection that has taken the head."""
        self.is_sent = True
        yield self._text


class Upstream:
    """The API of a hosted model.

    Parameters
    ----------
    settings
        Where it is.
    """

    def __init__(self, settings: HostedSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._trusted = (
            httpx.create_ssl_context(trust_env=False)
            if settings.ca_file is None
            else ssl.create_default_context(cafile=str(settings.ca_file))
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def picture(
        self, fields: dict[str, Any], *, width: int, height: int, paid: Callable[[], None]
    ) -> Picture:
        """Have one picture made.

        Parameters
        ----------
        fields
            Of the call's body.
        width, height
            What the picture must have, in pixels.
        paid
            Called when the picture is, or may be, on the bill.

        Raises
        ------
        RequestRefusedError
            If there is none.
        """
        picture = _read(await self._send(fields, paid))
        if picture.shape[:2] != (height, width):
            rows, columns = picture.shape[:2]
            raise _failed(
                "upstream_wrong_size",
                f"the hosted model made {columns}x{rows} pixels instead of {width}x{height}",
            )
        return picture

    def _key(self) -> dict[str, str]:
        if self._settings.key_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {read_key(self._settings.key_file)}"}
        except ValueError as error:
            raise _failed("upstream_key", str(error)) from error

    async def _send(self, fields: dict[str, Any], paid: Callable[[], None]) -> bytes:
        """Send a call, and again if that is safe; give the body of a successful answer."""
        for attempt in range(_RETRIES):
            try:
                return await self._send_once(fields, paid)
            except _TryAgainError as again:
                wait = _FIRST_WAIT_SECONDS * 2**attempt if again.wait is None else again.wait
                if wait > _LONGEST_WAIT_SECONDS:
                    raise again.refusal from None
            await asyncio.sleep(wait)
        try:
            return await self._send_once(fields, paid)
        except _TryAgainError as again:
            raise again.refusal from None

    async def _send_once(self, fields: dict[str, Any], paid: Callable[[], None]) -> bytes:
        if self._client is None:  # made here, for it belongs to the running loop
            self._client = httpx.AsyncClient(
                verify=self._trusted,
                trust_env=False,  # no proxy, no credentials of the environment
                follow_redirects=False,
                limits=_POOL,
                timeout=httpx.Timeout(self._settings.timeout_seconds, connect=_CONNECT_SECONDS),
            )
        url = f"{self._settings.base_url.rstrip('/')}/images/generations"
        body = _Body(fields)
        request = self._client.build_request(
            "POST", url, content=body.parts(), headers={**self._key(), **body.headers}
        )
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._exchange(self._client, request, paid)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _TryAgainError(
                _failed(
                    "upstream_unreachable", f"the hosted API cannot be reached: {_reason(error)}"
                ),
                None,
            ) from error
        except (httpx.HTTPError, TimeoutError, asyncio.CancelledError) as error:
            if body.is_sent:
                paid()  # nobody knows: the picture may have been made
            if isinstance(error, asyncio.CancelledError):
                raise
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> RequestRefusedError:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return _refusal(
                Outcome.TIMEOUT,
                504,
                "upstream_timeout",
                f"the hosted API did not answer within {self._settings.timeout_seconds:g} s",
            )
        return _failed("upstream_broken", "the hosted API broke off its answer")

    async def _exchange(
        self, client: httpx.AsyncClient, request: httpx.Request, paid: Callable[[], None]
    ) -> bytes:
        response = await client.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BODY_BYTES:
                    break
        finally:
            await response.aclose()
        if response.status_code != _OK:
            raise _meaning(response, bytes(body))
        paid()
        if len(body) > _MOST_BODY_BYTES:
            raise _failed("upstream_garbage", "the hosted API's answer is far too large")
        return bytes(body)


def _reason(error: Exception) -> str:
    return str(error)[:_MOST_MESSAGE_CHARACTERS] or type(error).__name__


def _retry_after(response: httpx.Response) -> float | None:
    """Give the seconds that an API asks to wait: it may say how many, or until when."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) < len("1000000") else None
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is in UTC, as all dates of HTTP are.
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    seconds = math.ceil((until - datetime.now(UTC)).total_seconds())
    return float(min(max(seconds, 0), _LONGEST_ASKED_SECONDS))


def _meaning(response: httpx.Response, body: bytes) -> Exception:
    """Turn an answer that is no success into what it means for the request."""
    status, wait = response.status_code, _retry_after(response)
    if status in {_BAD_REQUEST, _TOO_LARGE}:
        return _refusal(
            Outcome.INVALID, 400, "upstream_refused", f"the hosted model refuses: {_told(body)}"
        )
    if status == _TOO_MANY or (status == _UNAVAILABLE and wait is not None):
        return _TryAgainError(
            _refusal(
                Outcome.BUSY,
                429,
                "upstream_busy",
                "the hosted API takes no more requests at present",
                retry_after=max(1, round(wait or 1)),
            ),
            wait,
        )
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return _failed("upstream_key", "the hosted API does not accept the key")
    if status in _REDIRECTS:
        return _failed("upstream_redirect", "the hosted API redirects, which is never followed")
    return _failed("upstream_failed", f"the hosted API answered with status {status}")


def _told(body: bytes) -> str:
    """Give the message of an error in the OpenAI form, fit to be shown."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return "it does not say why"
    return ascii(message)[1:-1][:_MOST_MESSAGE_CHARACTERS]


def _read(body: bytes) -> Picture:
    try:
        (entry,) = json.loads(body)["data"]
        return read_base64(entry["b64_json"], max_pixels=_MOST_PIXELS)
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise _failed(
            "upstream_garbage", "the hosted API's answer holds no picture (data[0].b64_json)"
        ) from error
