"""The first pictures of a server, before anybody asks for one."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from imagegen.contract import WATCHDOG_CHECKS, OomPhase, StartupFailureCode
from imagegen.engines.base import Batch, Engine, GenerationSettings
from imagegen.errors import DeviceMemoryError, StartupError
from imagegen.server.costs import CostModel
from imagegen.server.metrics import ServerMetrics
from imagegen.server.settings import ServeSettings
from imagegen.server.watchdog import Expected, check_picture

__all__ = ["sample_batch", "warm_up"]

_LOG = logging.getLogger(__name__)
_PROMPT = "a lighthouse on a rocky shore at dawn"
_FEW_STEPS = 2
_ALWAYS = frozenset({"non_finite"})

_BROKEN = {
    "wrong_size": "it is not of the size that was asked for",
    "non_finite": "its pixels are not numbers; try another --precision",
    "flat": "it is one colour; the weights may be damaged, or try another --precision",
    "clipped": "most of its values are at an end of their range; try a lower --guidance-scale",
    "noise_like": "it is noise; the weights may be damaged, or --scheduler or --steps may not fit",
}
_MAY_BE_MEANT = ("flat", "clipped", "noise_like")
"""What a check means for whoever starts the server."""


def sample_batch(engine: Engine, settings: ServeSettings, *, count: int, steps: int) -> Batch:
    """Build a batch of the default size."""
    defaults = settings.defaults
    wanted = GenerationSettings(defaults.width, defaults.height, steps, defaults.guidance_scale)
    return engine.example(_PROMPT, count, wanted)


def warm_up(
    engine: Engine, settings: ServeSettings, *, metrics: ServerMetrics, costs: CostModel
) -> None:
    """Make the largest batch, so that trouble shows before users do, and then a single picture.

    Each is made twice, first with few steps: kernels are chosen and compiled when a shape is first
    made, and only the second time tells what requests will cost. What is remote is paid for, and
    makes one picture. Pictures of the default steps pass the watchdog as a user's would; of fewer
    steps only numbers are expected.

    Raises
    ------
    StartupError
        With code ``CudaOOM`` or ``HostOOM`` if memory ran out, ``WarmupFailed`` if the pictures
        could not be made or are broken.
    """
    steps = settings.defaults.steps
    few = min(steps, _FEW_STEPS)

    def make(count: int, steps: int) -> tuple[Batch, float, Mapping[str, float]]:
        batch = sample_batch(engine, settings, count=count, steps=steps)
        checks = _ALWAYS | settings.watchdog if steps == settings.defaults.steps else _ALWAYS
        return batch, *_generate(engine, batch, metrics, checks)

    def learn(count: int, steps: int) -> None:
        batch, seconds, stages = make(count, steps)
        costs.observe(batch.settings, len(batch), seconds, stages)

    if engine.is_remote:
        learn(1, steps)
        return
    most = settings.limits.max_batch_size
    for count, usual in ((most, steps), (1, few)) if most > 1 else ((1, steps),):
        make(count, few)
        learn(count, usual)


def _generate(
    engine: Engine, batch: Batch, metrics: ServerMetrics, checks: frozenset[str]
) -> tuple[float, Mapping[str, float]]:
    """Make a batch that must pass the checks; give its seconds, in all and by stage."""
    settings = batch.settings
    what = f"{len(batch)} x {settings.width}x{settings.height} at {settings.steps} steps"
    began = time.perf_counter()
    try:
        made = engine.generate(batch, should_stop=lambda: False)
    except DeviceMemoryError as error:
        metrics.ran_out_of_memory(OomPhase.WARMUP, recovered=False)
        cpu = engine.device == "cpu"
        raise StartupError(
            StartupFailureCode.HOST_OOM if cpu else StartupFailureCode.CUDA_OOM,
            f"no memory to warm up with {what}; lower the size or --max-batch-size",
        ) from error
    except Exception as error:
        raise StartupError(
            StartupFailureCode.WARMUP_FAILED, f"generating {what} failed: {error}"
        ) from error
    for refusal in made.refused.values():
        raise StartupError(
            StartupFailureCode.WARMUP_FAILED, f"generating {what} failed: {refusal.message}"
        )
    seconds = time.perf_counter() - began
    expected = Expected(settings.width, settings.height, checks)
    failures = {check_picture(picture, expected) for picture in made.images} - {None}
    for check in WATCHDOG_CHECKS:
        if check in failures:
            meant = f"; if such images are meant, leave {check} out of --watchdog"
            raise StartupError(
                StartupFailureCode.WARMUP_FAILED,
                f"generating {what} gave a broken image ({check}): {_BROKEN[check]}"
                + (meant if check in _MAY_BE_MEANT else ""),
            )
    return seconds, made.stages
