"""Which samplers fit which kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from imagegen.contract import StartupFailureCode
from imagegen.errors import StartupError

__all__ = [
    "FLOW_MATCHING",
    "NOISE_PREDICTING",
    "build_scheduler",
    "check_scheduler",
    "usable_schedulers",
]

NOISE_PREDICTING = (
    "DDIM",
    "DPMSolverMultistep",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "LCM",
    "PNDM",
    "UniPCMultistep",
)
"""Samplers of models trained on a noise schedule of betas (SD 1.x/2.x, SDXL)."""

FLOW_MATCHING = ("FlowMatchEulerDiscrete",)
"""Samplers of models trained by flow matching (SD3, Flux)."""

_OVERRIDES: dict[str, dict[str, object]] = {
    # Its Runge-Kutta start needs more steps than are asked for, and latent models leave it out.
    "PNDM": {"skip_prk_steps": True},
}


def usable_schedulers(own_scheduler: str) -> tuple[str, ...]:
    """Name the samplers that can replace a model's own one.

    Parameters
    ----------
    own_scheduler
        Class name of the scheduler in the model's ``model_index.json``.
    """
    return FLOW_MATCHING if own_scheduler.startswith("FlowMatch") else NOISE_PREDICTING


def check_scheduler(wanted: str, own_scheduler: str) -> None:
    """Refuse a sampler that the model cannot be sampled with.

    Diffusers itself builds the scheduler from the foreign configuration and then makes noise.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` and the samplers that are usable.
    """
    usable = usable_schedulers(own_scheduler)
    if wanted not in usable:
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"scheduler {wanted} cannot sample this model, whose own one is {own_scheduler}; "
            f"usable: {', '.join(usable)}",
        )


def build_scheduler(name: str, own_config: Mapping[str, Any]) -> Any:
    """Build a sampler from the configuration of the model's own one.

    Parameters
    ----------
    name
        Class name without the suffix ``Scheduler``.
    own_config
        The configuration to take over; what a sampler needs beside it is added.
    """
    scheduler_class = getattr(diffusers, f"{name}Scheduler")
    return scheduler_class.from_config(own_config, **_OVERRIDES.get(name, {}))
