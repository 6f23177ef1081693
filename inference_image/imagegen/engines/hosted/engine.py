"""The engine itself: one call per picture, all of a batch at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from imagegen.contract import OomPhase, StartupFailureCode
from imagegen.engines.base import Batch, Engine, Generated
from imagegen.engines.hosted.settings import HOUR_SECONDS, HostedSettings, read_key
from imagegen.engines.hosted.upstream import Upstream
from imagegen.errors import GenerationCancelledError, RequestRefusedError, StartupError

__all__ = ["HostedEngine"]

_LOOK_SECONDS: Final = 0.05
_CHOICES: Final = ("seed", "num_inference_steps", "guidance_scale")
"""Fields of a request that only matter if the API takes them."""


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
            self._upstream = Upstream(settings)
        except (ValueError, OSError) as error:  # the key, or the certificates to trust
            mistakes.append(str(error))
        if mistakes:
            raise StartupError(StartupFailureCode.MODEL_INVALID, "; ".join(mistakes))
        self._settings = settings
        self._busy_seconds = 0.0
        self._loop = asyncio.new_event_loop()
        self.takes_negative_prompt = "negative_prompt" in settings.fields
        self.unused_fields = tuple(name for name in _CHOICES if name not in settings.fields)

    def close(self) -> None:
        """Close the connections."""
        self._loop.run_until_complete(self._upstream.close())
        self._loop.close()

    def busy_clock(self) -> float:
        """Give the time that all pictures paid so far would have kept the pool's devices busy.

        Waiting for an answer costs nothing; a picture whose answer got lost may.
        """
        return self._busy_seconds

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Have the pictures of a batch made; see the interface."""
        return self._loop.run_until_complete(self._all(batch, should_stop))

    async def _all(self, batch: Batch, should_stop: Callable[[], bool]) -> Generated:
        began = time.perf_counter()
        settings = batch.settings
        paid = np.zeros(len(batch))
        calls = [
            asyncio.ensure_future(
                self._upstream.picture(
                    self._fields(batch, index),
                    width=settings.width,
                    height=settings.height,
                    paid=partial(self._pay, paid, index),
                )
            )
            for index in range(len(batch))
        ]
        try:
            while (await asyncio.wait(calls, timeout=_LOOK_SECONDS))[1]:
                if should_stop():
                    raise GenerationCancelledError("given up while the hosted API was at work")
        finally:
            for call in calls:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
        images = np.zeros((len(batch), settings.height, settings.width, 3), dtype=np.float32)
        refused = {}
        for index, result in enumerate(results):
            if isinstance(result, RequestRefusedError):
                refused[index] = result
            elif isinstance(result, BaseException):
                raise result
            else:
                images[index] = result
        stages: dict[str, float] = {OomPhase.DENOISE: time.perf_counter() - began}
        return Generated(images, stages, (), refused, paid.tolist())

    def _pay(self, paid: NDArray[np.float64], index: int) -> None:
        """Note that a picture is, or may be, on the bill."""
        paid[index] += 1
        price = self._settings.price_per_image / self._settings.price_per_hour
        self._busy_seconds += price * HOUR_SECONDS

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
