"""Calls of an engine, in short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imagegen.engines.base import Batch, Engine, GenerationSettings, Images

SETTINGS = GenerationSettings(width=32, height=32, steps=2, guidance_scale=4.0)


def never() -> bool:
    return False


def make(engine: Engine, prompts: list[str], seeds: list[int], **settings: Any) -> Images:
    batch = Batch(
        tuple(prompts), tuple(seeds), GenerationSettings(**{**SETTINGS.__dict__, **settings})
    )
    return engine.generate(batch, should_stop=never).images


def levels(images: Images) -> NDArray[np.int64]:
    return (images * 255).round().astype(np.int64)


def out_of_memory_in(part: torch.nn.Module, *, at_call: int = 1) -> Callable[[], None]:
    """Let a part of a pipeline run out of memory once, at its n-th call from now on."""
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return failing_in(part, full, at_call=at_call)


def failing_in(part: torch.nn.Module, error: Exception, *, at_call: int = 1) -> Callable[[], None]:
    """Let a part of a pipeline fail once, at its n-th call from now on; gives what undoes it."""
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise error

    return part.register_forward_pre_hook(fail).remove
