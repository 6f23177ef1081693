"""The connection to Prometheus: what it may send, and how much and how long it may answer."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import requests

from modelrollout.errors import Transient

__all__ = ["LARGEST_BODY", "Failure", "GuardedSession"]

LARGEST_BODY: Final = 64 * 2**20
"""Most bytes of one answer: some ten thousand pods. More is not what was asked for."""

_CHUNK: Final = 2**16
_QUOTED: Final = 200
"""Most characters of somebody else's words in our messages."""


class Failure(StrEnum):
    """Reasons why there is no snapshot."""

    UNREACHABLE = "PrometheusUnreachable"
    """No connection, or it broke."""

    TIMEOUT = "PrometheusTimeout"
    """No answer in time."""

    UNAVAILABLE = "PrometheusUnavailable"
    """It answers that it cannot answer now."""

    REFUSED = "PrometheusRefused"
    """It refuses us: the token, or a query."""

    PARTIAL = "PrometheusPartialAnswer"
    """The answer comes with warnings: data may be missing."""

    BAD_ANSWER = "PrometheusBadAnswer"
    """What answers is not Prometheus, or not as it should be."""

    CREDENTIALS = "PrometheusCredentials"
    """The file of the token or of the certificates cannot be used."""


class GuardedSession(requests.Session):
    """A session for one round of queries.

    It follows no redirects, takes nothing from the environment (proxies, netrc), bounds the size
    and the time of all answers, and refuses those that are no full success.

    Parameters
    ----------
    token
        Bearer token, or None to send none.
    ca_file
        File of the certificates to trust instead of the public ones, or None.
    seconds
        Time for the whole round.
    largest_body
        Most bytes of one answer, unpacked.
    """

    def __init__(
        self,
        *,
        token: str | None,
        ca_file: str | None,
        seconds: float,
        largest_body: int = LARGEST_BODY,
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.verify = ca_file or True
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"
        self._deadline = time.monotonic() + seconds
        self._largest_body = largest_body

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and return its answer, read whole.

        Raises
        ------
        Transient
            When the answer is not a full success, is too long or too late.
        requests.RequestException, urllib3.exceptions.HTTPError
            When the connection fails.
        """
        kwargs.update(stream=True, allow_redirects=False, timeout=self._remaining())
        with super().send(request, **kwargs) as response:
            body = self._read(response)
        if response.status_code != requests.codes.ok:
            raise _refusal(response, body)
        if b'"warnings"' in body and (warnings := _parsed(body).get("warnings")):
            raise Transient(
                Failure.PARTIAL, f"Prometheus warns that data may be missing: {_quoted(warnings)}"
            )
        response.raw = io.BytesIO(body)
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target: even to look at one, the library would read its whole body."""

    def _read(self, response: requests.Response) -> bytes:
        body = bytearray()
        # One piece at a time as they arrive: an answer that drips would renew any other time limit.
        while piece := response.raw.read1(_CHUNK, decode_content=True):
            body += piece
            if len(body) > self._largest_body:
                raise Transient(
                    Failure.BAD_ANSWER,
                    f"the answer of Prometheus is longer than {self._largest_body} bytes",
                )
            self._remaining()
        return bytes(body)

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise Transient(Failure.TIMEOUT, "Prometheus did not answer all queries in time")
        return remaining


def _refusal(response: requests.Response, body: bytes) -> Transient:
    status = response.status_code
    if requests.codes.multiple_choices <= status < requests.codes.bad:
        return Transient(
            Failure.BAD_ANSWER,
            f"Prometheus redirects (HTTP {status}), which is not followed: "
            "set `prometheus.url` to the final address",
        )
    document = _parsed(body)
    said = _quoted(document.get("error") or body.decode(errors="replace"))
    if document.get("errorType") in ("timeout", "canceled"):
        return Transient(Failure.TIMEOUT, f"Prometheus gave up on a query: {said}")
    if status >= requests.codes.server_error or status == requests.codes.too_many:
        return Transient(Failure.UNAVAILABLE, f"Prometheus answers HTTP {status}: {said}")
    return Transient(Failure.REFUSED, f"Prometheus refuses (HTTP {status}): {said}")


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _quoted(said: object) -> str:
    text = "; ".join(map(str, said)) if isinstance(said, list) else str(said)
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED else text[:_QUOTED] + " …"
