"""Options that change how a pipeline computes: each is applied as declared or refused."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NoReturn

import diffusers
from torch.nn.attention import SDPBackend, sdpa_kernel

from imagegen.contract import StartupFailureCode
from imagegen.engines.settings import Demand, DiffusersSettings, StepCache
from imagegen.errors import StartupError

__all__ = [
    "apply_attention",
    "apply_cache",
    "apply_offload",
    "attention_context",
    "check_options",
    "compile_blocks",
    "denoiser_of",
]

_KERNELS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_PACKAGES: Final = {"xformers": "xformers", "flash-attn": "flash_attn", "sage": "sageattention"}
_DIFFUSERS_NAMES: Final = {"xformers": "xformers", "flash-attn": "flash", "sage": "sage"}
_HALF_PRECISION_ONLY: Final = ("flash", "cudnn", "flash-attn", "sage")
_COMPILERS: Final = {"cpu": ("g++", "c++", "clang++"), "cuda": ("gcc", "cc", "clang")}


def _refuse(option: str, message: str) -> NoReturn:
    raise StartupError(StartupFailureCode.MODEL_INVALID, f"{option}: {message}")


def denoiser_of(pipeline: Any) -> Any:
    """Give the network that is called in every step."""
    return getattr(pipeline, "transformer", None) or pipeline.unet


def check_options(
    settings: DiffusersSettings, demand: Demand, *, pipeline_class: str, device: str
) -> None:
    """Refuse options that this machine or this model has not; nothing is loaded yet.

    Raises
    ------
    StartupError
        With code ``ModelInvalid``, the option, why it cannot be had, and what to do.
    """
    _check_attention(settings, pipeline_class, device)
    if settings.compile == "regional":
        if settings.offload != "none":
            _refuse("--compile regional", "does not go together with --offload; drop one of them")
        if not (os.environ.get("CXX" if device == "cpu" else "CC")) and not any(
            shutil.which(name) for name in _COMPILERS[device]
        ):
            names = ", ".join(_COMPILERS[device])
            _refuse("--compile regional", f"needs one of the compilers {names} in the image")
    if settings.offload != "none" and device == "cpu":
        _refuse(f"--offload {settings.offload}", "needs a CUDA device to move weights to")
    if settings.cache is not None:
        option = f"--cache {settings.cache}"
        if pipeline_class != "FluxPipeline":
            _refuse(option, f"diffusers offers it for FluxPipeline only, not {pipeline_class}")
        if (
            settings.cache.couples_neighbours
            and demand.max_batch_size > 1
            and not settings.cache_with_batching
        ):
            _refuse(
                option,
                "it decides for a whole batch at once, so that the other pictures of a batch "
                "change a picture; use --max-batch-size 1, a taylorseer cache, or accept it with "
                "--cache-with-batching",
            )


def _check_attention(settings: DiffusersSettings, pipeline_class: str, device: str) -> None:
    name = settings.attention
    option = f"--attention {name}"
    package = _PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        _refuse(option, f"the package {package} is not installed; use sdpa")
    if name not in {"sdpa", "math"} and device == "cpu":
        _refuse(option, "needs a CUDA device; use sdpa or math")
    if name in _HALF_PRECISION_ONLY and settings.precision == "Float32":
        _refuse(option, "needs --precision BFloat16 or Float16")
    if name in {"flash-attn", "sage"} and pipeline_class != "FluxPipeline":
        _refuse(option, f"diffusers offers it for FluxPipeline only, not {pipeline_class}")


def attention_context(name: str) -> Callable[[], AbstractContextManager[None]]:
    """Give what every call runs in, so that torch takes the wanted kernel of its own.

    A kernel that cannot do a call, such as one with a mask in a text encoder, is replaced by the
    plain one for that call.
    """
    if name == "math":
        return lambda: sdpa_kernel([SDPBackend.MATH])
    if name in _KERNELS:
        order = [_KERNELS[name], SDPBackend.MATH]
        return lambda: sdpa_kernel(order, set_priority=True)
    return nullcontext


def apply_attention(pipeline: Any, name: str) -> None:
    """Let the denoiser use a package's kernel instead of torch's."""
    if name not in _PACKAGES:
        return
    denoiser = denoiser_of(pipeline)
    if type(pipeline).__name__ == "FluxPipeline":
        denoiser.set_attention_backend(_DIFFUSERS_NAMES[name])
    else:
        denoiser.enable_xformers_memory_efficient_attention()


def compile_blocks(pipeline: Any, **options: Any) -> None:
    """Compile the blocks that the denoiser repeats, at the first call with each shape.

    Parameters
    ----------
    pipeline
        A loaded pipeline.
    options
        Passed to :func:`torch.compile`.
    """
    denoiser = denoiser_of(pipeline)
    if denoiser._repeated_blocks:  # noqa: SLF001 - the only place where diffusers tells
        denoiser.compile_repeated_blocks(**options)
        return
    for block in denoiser.transformer_blocks:  # SD3 repeats them too, and does not say so
        block.compile(**options)


def apply_cache(pipeline: Any, cache: StepCache) -> None:
    """Let the denoiser reuse work between steps."""
    if cache.kind == "first-block":
        config: Any = diffusers.FirstBlockCacheConfig(threshold=cache.value)
    else:
        config = diffusers.TaylorSeerCacheConfig(
            cache_interval=int(cache.value), taylor_factors_dtype=pipeline.dtype
        )
    denoiser_of(pipeline).enable_cache(config)


def apply_offload(pipeline: Any, how: str, device: str) -> Any:
    """Put a pipeline on its device, wholly or so that its weights come only when needed."""
    if how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif how == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline
