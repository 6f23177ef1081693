"""One loaded pipeline, called by one thread."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, Engine, Generated, Images, StageClock
from imagegen.engines.diffusers.schedulers import build_scheduler, usable_schedulers
from imagegen.engines.diffusers.tokens import sequence_length, token_counter
from imagegen.errors import DeviceMemoryError, EngineBrokenError, GenerationCancelledError

__all__ = ["DiffusersEngine", "first_line", "is_out_of_memory"]

_LEAST_MULTIPLE = 8  # SD and SDXL ask for it whatever the VAE's factor is
_UNBOUNDED_SIDE = 1 << 16


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device's or the host's allocator had no memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


class DiffusersEngine(Engine):
    """A text-to-image pipeline of diffusers.

    Parameters
    ----------
    pipeline
        A loaded pipeline, on its device, in evaluation mode.
    precision
        Name of the weights' number format, told in the description.
    """

    def __init__(self, pipeline: Any, *, precision: str) -> None:
        self._pipeline = pipeline
        self._precision = precision
        self._clock: StageClock | None = None
        self._device = torch.device(pipeline.device)
        self._scheduler_config = dict(pipeline.scheduler.config)
        self._default_scheduler = type(pipeline.scheduler).__name__.removesuffix("Scheduler")
        self.schedulers = usable_schedulers(f"{self._default_scheduler}Scheduler")
        self.can_tile = hasattr(pipeline.vae, "use_tiling")
        self._sequence_length = sequence_length(pipeline)
        self.max_prompt_tokens, self._counter = token_counter(pipeline)
        self.device = "cpu" if self._device.type == "cpu" else f"cuda:{self._device.index or 0}"
        self._is_flux = type(pipeline).__name__ == "FluxPipeline"
        self.takes_negative_prompt = not self._is_flux
        factor = int(pipeline.vae_scale_factor)
        patch = int(getattr(pipeline, "patch_size", 2 if self._is_flux else 1))
        self.size_multiple = math.lcm(_LEAST_MULTIPLE, factor * patch)
        denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
        positions = denoiser.config.get("pos_embed_max_size")
        self.max_side = positions * patch * factor if positions else _UNBOUNDED_SIDE
        denoiser.register_forward_pre_hook(lambda *_: self._enter(OomPhase.DENOISE))
        pipeline.vae.decoder.register_forward_pre_hook(lambda *_: self._enter(OomPhase.DECODE))
        pipeline.set_progress_bar_config(disable=True)

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Make the pictures of a batch; see the interface."""
        clock = StageClock(self._now)
        self._clock = clock
        try:
            images = self._call(batch, clock, should_stop)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                if isinstance(error, torch.AcceleratorError):
                    raise EngineBrokenError(first_line(error)) from error
                raise
        else:
            clock.finish()
            return Generated(images, clock.stages, clock.steps)
        finally:
            self._clock = None
        # Only here are the exception and the frames whose tensors it kept alive gone.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceMemoryError(clock.stage)

    def _call(self, batch: Batch, clock: StageClock, should_stop: Callable[[], bool]) -> Images:
        settings = batch.settings

        def step_ended(_pipe: Any, _step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
            clock.step_ended()
            if should_stop():
                raise GenerationCancelledError("given up at a step boundary")
            return state

        arguments: dict[str, Any] = {
            "prompt": list(batch.prompts),
            "width": settings.width,
            "height": settings.height,
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            # Fresh ones for every attempt: a generator that a failed attempt drew from is spent.
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in batch.seeds],
            "output_type": "np",
            "callback_on_step_end": step_ended,
        }
        if batch.negative_prompts[0] is not None and self.takes_negative_prompt:
            arguments["negative_prompt"] = list(batch.negative_prompts)
        if self._sequence_length is not None:
            arguments["max_sequence_length"] = self._sequence_length
        self._pipeline.scheduler = self._scheduler(settings.scheduler or self._default_scheduler)
        with torch.inference_mode(), self._tiling(wanted=settings.tiled_decoding):
            return np.asarray(self._pipeline(**arguments).images, dtype=np.float32)

    def _scheduler(self, name: str) -> Any:
        """Build a sampler anew: one that an aborted call used remembers where it was."""
        if name not in self.schedulers:
            raise ValueError(f"scheduler {name} is not one of {', '.join(self.schedulers)}")
        return build_scheduler(name, self._scheduler_config)

    @contextlib.contextmanager
    def _tiling(self, *, wanted: bool) -> Iterator[None]:
        vae = self._pipeline.vae
        before = vae.use_tiling
        vae.use_tiling = wanted or before
        try:
            yield
        finally:
            vae.use_tiling = before

    def count_tokens(self, prompt: str) -> int:
        """Count the tokens of a prompt, those that mark its begin and end included."""
        return len(self._counter.encode(prompt).ids)

    def describe(self) -> dict[str, str]:
        """Describe what pictures depend on."""
        gpu = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "none"
        return {
            "pipeline": type(self._pipeline).__name__,
            "dtype": self._precision,
            "scheduler": self._default_scheduler,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "gpu": gpu,
        }

    def memory(self) -> dict[str, int]:
        """Device memory in bytes by kind; empty on a CPU."""
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        return {
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
            "peak_allocated": torch.cuda.max_memory_allocated(self._device),
            "peak_reserved": torch.cuda.max_memory_reserved(self._device),
            "device_used": total - free,
            "device_total": total,
        }

    def _enter(self, stage: OomPhase) -> None:
        if self._clock is not None:
            self._clock.enter(stage)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text, or its name when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
