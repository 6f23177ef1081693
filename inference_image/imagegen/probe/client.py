"""Requests to one server."""

from __future__ import annotations

import base64
import binascii
import io

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagegen.contract import BATCH_HEADER, READY_PATH

__all__ = ["Picture", "ProbeClient"]

Picture = NDArray[np.uint8]
"""A decoded picture: shape (height, width, 3)."""

_MOST_CONNECTIONS = 256
_CONNECT_SECONDS = 10.0
"""A server that is there takes a connection at once, however long its answers take."""


class ProbeClient:
    """Asks a server for single pictures; failures are answers too, never exceptions.

    Parameters
    ----------
    url
        Base address of the server.
    timeout_seconds
        After this long a request counts as failed.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
        timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
        self._takes_seeds = True
        self._http = httpx.AsyncClient(
            base_url=url, timeout=timeout, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def is_ready(self) -> bool:
        """Ask whether the server takes requests."""
        try:
            answer = await self._http.get(READY_PATH, timeout=_CONNECT_SECONDS)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    async def picture(self, prompt: str, seed: int, *, alone: bool = False) -> Picture | None:
        """Ask for one picture at the server's own defaults.

        A server that refuses seeds, because its model takes none, is asked without from then on.

        Parameters
        ----------
        prompt, seed
            What is asked for.
        alone
            Whether it must run in a batch of its own: pictures of one prompt and seed differ by
            rounding when the load decides on the batches.

        Returns
        -------
        Picture or None
            None when the server could not be reached, took too long, refused, or did not answer
            with a picture.
        """
        try:
            answer = await self._ask(prompt, seed, alone=alone)
            if self._takes_seeds and _refuses_seeds(answer):
                self._takes_seeds = False
                answer = await self._ask(prompt, seed, alone=alone)
            if answer.status_code != httpx.codes.OK:
                return None
            encoded = answer.json()["data"][0]["b64_json"]
            with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
                return np.asarray(image.convert("RGB"), dtype=np.uint8)
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError):
            return None
        except (OSError, binascii.Error):  # not a picture
            return None

    async def _ask(self, prompt: str, seed: int, *, alone: bool) -> httpx.Response:
        fields = {"prompt": prompt, "n": 1, **({"seed": seed} if self._takes_seeds else {})}
        return await self._http.post(
            "/v1/images/generations",
            json=fields,
            headers={BATCH_HEADER: "1"} if alone else {},
        )


def _refuses_seeds(answer: httpx.Response) -> bool:
    if answer.status_code != httpx.codes.BAD_REQUEST:
        return False
    return bool(answer.json()["error"]["param"] == "seed")
