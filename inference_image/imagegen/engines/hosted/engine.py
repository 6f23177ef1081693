"""The engine itself: one call per picture, all of a batch at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from imagegen.contract import OomPhase, StartupFailureCode
from imagegen.engines.base import Batch, Engine, Generated, Images
from imagegen.engines.hosted.settings import HOUR_SECONDS, HostedSettings, read_key
from imagegen.engines.hosted.upstream import Upstream
from imagegen.errors import GenerationCancelledError, StartupError

__all__ = ["HostedEngine"]

_LOOK_SECONDS: Final = 0.05


class HostedEngine(Engine):
    """Has pictures made elsewhere.

    Parameters
    ----------
    settings
        Where, and at what price.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` if the settings cannot be, or the key cannot be read.
    """

    device = "hosted"
    size_multiple = 1
    max_side = 4096
    schedulers = ()
    can_tile = False
    max_prompt_tokens = None
    is_remote = True

    def __init__(self, settings: HostedSettings) -> None:
        mistakes = settings.mistakes()
        try:
            if settings.key_file is not None:
                read_key(settings.key_file)
            self._upstream = Upstream(settings, self._paid)
        except (ValueError, OSError) as error:  # the key, or the certificates to trust
            mistakes.append(str(error))
        if mistakes:
            raise StartupError(StartupFailureCode.MODEL_INVALID, "; ".join(mistakes))
        self._settings = settings
        self._busy_seconds = 0.0
        self._loop = asyncio.new_event_loop()
        self.takes_negative_prompt = "negative_prompt" in settings.fields

    def close(self) -> None:
        """Close the connections."""
        self._loop.run_until_complete(self._upstream.close())
        self._loop.close()

    def busy_clock(self) -> float:
        """Give the time that all pictures paid so far would have kept the pool's devices busy.

        Waiting for an answer costs nothing; a picture whose answer got lost may.
        """
        return self._busy_seconds

    def _paid(self) -> None:
        price = self._settings.price_per_image / self._settings.price_per_hour
        self._busy_seconds += price * HOUR_SECONDS

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Have the pictures of a batch made; see the interface."""
        began = time.perf_counter()
        images = self._loop.run_until_complete(self._all(batch, should_stop))
        return Generated(images, {OomPhase.DENOISE: time.perf_counter() - began}, ())

    async def _all(self, batch: Batch, should_stop: Callable[[], bool]) -> Images:
        settings = batch.settings
        calls = [
            asyncio.ensure_future(
                self._upstream.picture(
                    self._fields(batch, index), width=settings.width, height=settings.height
                )
            )
            for index in range(len(batch))
        ]
        try:
            open_calls = set(calls)
            while open_calls:
                done, open_calls = await asyncio.wait(
                    open_calls, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for call in done:
                    call.result()
                if open_calls and should_stop():
                    raise GenerationCancelledError("given up while the hosted API was at work")
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        return np.stack([call.result() for call in calls])

    def _fields(self, batch: Batch, index: int) -> dict[str, Any]:
        settings = batch.settings
        extensions = {
            "response_format": "b64_json",
            "output_format": "png",
            "negative_prompt": batch.negative_prompts[index],
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "seed": batch.seeds[index],
        }
        return {
            "model": self._settings.model,
            "prompt": batch.prompts[index],
            "n": 1,
            "size": f"{settings.width}x{settings.height}",
            **{
                name: value
                for name, value in extensions.items()
                if name in self._settings.fields and value is not None
            },
        }

    def describe(self) -> dict[str, str]:
        """Describe what pictures depend on, and their price."""
        settings = self._settings
        return {
            "pipeline": "hosted",
            "host": settings.host,
            "upstream_model": settings.model,
            "fields": ",".join(settings.fields),
            "price_per_image": f"{settings.price_per_image:g}",
            "price_per_hour": f"{settings.price_per_hour:g}",
        }

    def memory(self) -> dict[str, int]:
        """Give nothing: the device is elsewhere."""
        return {}
