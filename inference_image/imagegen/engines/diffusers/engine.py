"""One loaded pipeline, called by one thread."""

from __future__ import annotations

import contextlib
import errno
import gc
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import diffusers
import numpy as np
import torch
import transformers

from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, Engine, Generated, Images, StageClock
from imagegen.engines.diffusers.schedulers import SchedulerFactory
from imagegen.engines.diffusers.tokens import sequence_length, token_counter
from imagegen.engines.diffusers.tuning import attention_context, denoiser_of
from imagegen.engines.presets import Preset
from imagegen.engines.settings import DiffusersSettings
from imagegen.errors import DeviceMemoryError, EngineBrokenError, GenerationCancelledError

__all__ = ["DiffusersEngine", "first_line", "is_out_of_memory"]

_LEAST_MULTIPLE: Final = 8  # SD and SDXL ask for it whatever the VAE's factor is
_UNBOUNDED_SIDE: Final = 1 << 16
_DECODED_TOGETHER: Final = 1 << 20
"""Pixels; a batch with more in all is decoded picture by picture unless told otherwise: the device
is busy with one, and decoding needs the most memory of all stages."""

_NO_MEMORY: Final = (
    *("out of memory", "can't allocate memory", "cannot allocate memory"),
    *("_alloc_failed", "bad_alloc"),
)
"""What drivers, torch's allocator of the CPU, the kernel (of weights that are mapped), CUDA's
libraries and C++ say of it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device's or the host's allocator had no memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


class DiffusersEngine(Engine):
    """A pipeline of diffusers.

    Parameters
    ----------
    pipeline
        A loaded pipeline, with its options applied.
    settings
        Those options, to be told in the description, and those that act on single calls.
    preset
        The kind of model, for its limits.
    scheduler
        Name of the default sampler.
    schedulers
        Names of all that a request may choose.
    device
        Where it computes; weights that are moved there on demand may be elsewhere.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        settings: DiffusersSettings,
        preset: Preset,
        scheduler: str,
        schedulers: tuple[str, ...],
        device: torch.device,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._preset = preset
        self._default_scheduler = scheduler
        self._device = device
        self._clock: StageClock | None = None
        self._build_scheduler = SchedulerFactory(
            pipeline.scheduler.config, trailing=preset.name in {"turbo", "schnell"}
        ).build
        self._attention = attention_context(settings.attention)
        self._vae_dtype = pipeline.vae.dtype
        self._sequence_length = sequence_length(pipeline)
        self.schedulers = schedulers
        self.can_tile = settings.vae_tiling != "off"
        self.guidance_range = preset.guidance_range
        self.max_steps = preset.max_steps
        trained = pipeline.scheduler.config.num_train_timesteps
        if not type(pipeline.scheduler).__name__.startswith("FlowMatch"):  # it counts in fractions
            # Samplers begin their count at 1, and some then look for a noise beyond the last.
            self.max_steps = min(preset.max_steps or trained, trained - 1)
        self.max_prompt_tokens, self._counter = token_counter(pipeline)
        self.device = "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"
        self._learn_sizes()
        self._prepare()

    def _learn_sizes(self) -> None:
        pipeline = self._pipeline
        is_flux = type(pipeline).__name__ == "FluxPipeline"
        # With guidance as an input of the denoiser there is no second pass that could read one.
        embedded = denoiser_of(pipeline).config.get("time_cond_proj_dim") is not None
        self.takes_negative_prompt = not (is_flux or embedded)
        factor = int(pipeline.vae_scale_factor)
        patch = int(getattr(pipeline, "patch_size", 2 if is_flux else 1))
        self.size_multiple = math.lcm(_LEAST_MULTIPLE, factor * patch)
        positions = denoiser_of(pipeline).config.get("pos_embed_max_size")
        self.max_side = positions * patch * factor if positions else _UNBOUNDED_SIDE

    def _prepare(self) -> None:
        for part in self._pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(requires_grad=False)
        denoiser, decoder = denoiser_of(self._pipeline), self._pipeline.vae.decoder
        denoiser.register_forward_pre_hook(lambda *_: self._enter(OomPhase.DENOISE))
        decoder.register_forward_pre_hook(lambda *_: self._enter(OomPhase.DECODE))
        self._pipeline.set_progress_bar_config(disable=True)

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Make the pictures of a batch; see the interface."""
        # OpenMP keeps the number of threads per calling thread; by this call torch sets it there,
        # or the first operations would use all cores and round in another way.
        torch.get_num_threads()
        clock = self._new_clock()
        self._clock = clock
        try:
            images = self._call(batch, clock, should_stop)
            return Generated(images, *clock.finish())
        except Exception as error:
            if not is_out_of_memory(error):
                if isinstance(error, torch.AcceleratorError):
                    raise EngineBrokenError(first_line(error)) from error
                self._recover()
                raise
        finally:
            self._clock = None
        # Only here are the exception and the frames whose tensors it kept alive gone.
        self._recover(free_memory=True)
        raise DeviceMemoryError(clock.stage)

    def _recover(self, *, free_memory: bool = False) -> None:
        """Get ready for the next call after one that did not come to its end."""
        try:
            self._reset()
            if free_memory:
                gc.collect()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # raises if the device is sick for good
                if free_memory:
                    torch.cuda.empty_cache()
        except torch.AcceleratorError as error:
            raise EngineBrokenError(first_line(error)) from error

    def _reset(self) -> None:
        """Undo what a call that did not come to its end has left behind."""
        # Forgets what step caches remember, and moves offloaded weights back.
        self._pipeline.maybe_free_model_hooks()
        # SDXL decodes in single precision, and casts the decoder back only afterwards.
        if self._pipeline.vae.dtype != self._vae_dtype:
            self._pipeline.vae.to(dtype=self._vae_dtype)

    def _call(self, batch: Batch, clock: StageClock, should_stop: Callable[[], bool]) -> Images:
        def step_ended(*event: Any) -> Any:
            clock.step_ended()
            if should_stop():
                raise GenerationCancelledError("given up at a step boundary")
            return event[-1]

        name = batch.settings.scheduler or self._default_scheduler
        if name not in self.schedulers:
            raise ValueError(f"scheduler {name} is not one of {', '.join(self.schedulers)}")
        self._pipeline.scheduler = self._build_scheduler(name)
        arguments = {
            **self._arguments(batch),
            **self._callback(step_ended),
            "prompt": list(batch.prompts),
            "num_inference_steps": batch.settings.steps,
            "guidance_scale": batch.settings.guidance_scale,
            # Fresh ones for every attempt: a generator that a failed attempt drew from is spent.
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in batch.seeds],
            "output_type": "np",
        }
        if batch.negative_prompts[0] is not None and self.takes_negative_prompt:
            arguments["negative_prompt"] = list(batch.negative_prompts)
        with torch.inference_mode(), self._attention(), self._decoding(batch):
            return np.asarray(self._pipeline(**arguments).images, dtype=np.float32)

    def _arguments(self, batch: Batch) -> dict[str, Any]:
        """Give the arguments that only this kind of pipeline takes."""
        arguments: dict[str, Any] = {
            "width": batch.settings.width,
            "height": batch.settings.height,
        }
        if self._sequence_length is not None:
            arguments["max_sequence_length"] = self._sequence_length
        return arguments

    def _callback(self, step_ended: Callable[..., Any]) -> dict[str, Any]:
        """Give the argument that has a function called after every step."""
        return {"callback_on_step_end": step_ended}

    @contextlib.contextmanager
    def _decoding(self, batch: Batch) -> Iterator[None]:
        """Set how this batch is decoded."""
        vae, settings, options = self._pipeline.vae, batch.settings, self._settings
        large = len(batch) * settings.width * settings.height > _DECODED_TOGETHER
        vae.use_slicing = options.vae_slicing == "on" or (options.vae_slicing == "auto" and large)
        vae.use_tiling = self.can_tile and (options.vae_tiling == "on" or settings.tiled_decoding)
        try:
            yield
        finally:
            vae.use_tiling = False

    def count_tokens(self, prompt: str) -> int:
        """Count the tokens of a prompt, those that mark its begin and end included."""
        return len(self._counter.encode(prompt).ids)

    def describe(self) -> dict[str, str]:
        """Describe what pictures depend on."""
        on_gpu = self._device.type == "cuda"
        gpu = torch.cuda.get_device_name(self._device) if on_gpu else "none"
        options = self._settings
        return {
            "pipeline": type(self._pipeline).__name__,
            "preset": self._preset.name,
            "digest": options.digest or "not pinned",
            "dtype": options.precision,
            "scheduler": self._default_scheduler,
            "attention": options.attention,
            "compile": options.compile,
            "cache": str(options.cache or "none"),
            "vae_tiling": options.vae_tiling,
            "vae_slicing": options.vae_slicing,
            "offload": options.offload,
            "deterministic": str(options.deterministic).lower(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "gpu": gpu,
            "cuda": (torch.version.cuda or "") if on_gpu else "",
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

    def _new_clock(self) -> StageClock:
        return StageClock() if self._device.type == "cpu" else StageClock(_event, _event_seconds)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _event_seconds(first: torch.cuda.Event, second: torch.cuda.Event) -> float:
    second.synchronize()
    return float(first.elapsed_time(second)) / 1000


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text, or its name when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
