"""Pipelines that make a picture larger."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np

from imagegen.contract import Outcome
from imagegen.engines.base import Batch, Task
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.diffusers.tuning import denoiser_of
from imagegen.errors import RequestRefusedError

__all__ = ["UpscaleEngine"]

_LEAST_SOURCE_MULTIPLE: Final = 8
_LONGEST_SIDE: Final = 1 << 16


class UpscaleEngine(DiffusersEngine):
    """Enlarges the sources of a batch; see :class:`DiffusersEngine`.

    Every source has its own prompt and seed, as a generated picture has.
    """

    task: ClassVar[Task] = Task.UPSCALE

    def _learn_sizes(self) -> None:
        factor = int(self._pipeline.vae_scale_factor)
        halvings = 2 ** (len(denoiser_of(self._pipeline).config.block_out_channels) - 1)
        # What is denoised is as large as the source, or twice as large as its latents.
        latent = type(self._pipeline).__name__ == "StableDiffusionLatentUpscalePipeline"
        self.scale = 2 if latent else factor
        even = factor * halvings // 2 if latent else halvings
        self.size_multiple = self.scale * math.lcm(_LEAST_SOURCE_MULTIPLE, even)
        self.max_side = _LONGEST_SIDE
        self.takes_negative_prompt = True

    def _arguments(self, batch: Batch) -> dict[str, Any]:
        width, height = batch.settings.width, batch.settings.height
        wanted = (height // self.scale, width // self.scale, 3)
        if not batch.sources or any(source.shape != wanted for source in batch.sources):
            raise RequestRefusedError(
                outcome=Outcome.INVALID,
                status=400,
                code="source_missing",
                message="this model enlarges pictures: it needs one of "
                f"{wanted[1]}x{wanted[0]} pixels to make one of {width}x{height}",
            )
        return {"image": np.stack(batch.sources)}

    def _callback(self, step_ended: Callable[..., Any]) -> dict[str, Any]:
        return {"callback": step_ended}
