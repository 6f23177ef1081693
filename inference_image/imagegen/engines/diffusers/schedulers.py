"""Which samplers fit which kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import diffusers

from imagegen.contract import StartupFailureCode
from imagegen.engines.folder import ModelFolder
from imagegen.engines.presets import Preset
from imagegen.errors import StartupError

__all__ = [
    "FLOW_MATCHING",
    "NOISE_PREDICTING",
    "SchedulerFactory",
    "allowed_schedulers",
    "check_scheduler",
    "usable_schedulers",
]

NOISE_PREDICTING: Final = (
    "DDIM",
    "DPMSolverMultistep",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "LCM",
    "PNDM",
    "UniPCMultistep",
)
"""Samplers of models trained on a noise schedule of betas (SD 1.x/2.x, SDXL)."""

FLOW_MATCHING: Final = ("FlowMatchEulerDiscrete", "UniPCMultistep")
"""Samplers of models trained by flow matching (SD3, Flux)."""

_CANNOT_PREDICT: Final = {
    "EulerAncestralDiscrete": {"sample"},
    "PNDM": {"sample"},
}
_LCM_STEPS: Final = 50
_TRAINED: Final = 1000


def usable_schedulers(folder: ModelFolder, preset: Preset, *, max_steps: int) -> tuple[str, ...]:
    """Name the samplers that can replace a model's own one.

    Parameters
    ----------
    folder
        The model.
    preset
        Its kind; a distilled model may need its own sampler.
    max_steps
        The most steps a request may ask for; a sampler must be able to take them.
    """
    if preset.schedulers is not None:
        return preset.schedulers
    if folder.pipeline_class == "StableDiffusionLatentUpscalePipeline":
        return ("EulerDiscrete",)  # the pipeline computes with its sigmas
    own = folder.configs.get("scheduler", {})
    if folder.scheduler_class.startswith("FlowMatch"):
        sd3 = folder.pipeline_class == "StableDiffusion3Pipeline"
        # Its timesteps are whole numbers. With more of them the first two are the same, and the
        # pipeline does not say that it begins with the first: there would be one step too few.
        if sd3 and max_steps * own.get("shift", 1.0) > own.get("num_train_timesteps", _TRAINED):
            return tuple(name for name in FLOW_MATCHING if name != "UniPCMultistep")
        return FLOW_MATCHING
    predicts = own.get("prediction_type", "epsilon")
    unfit = {name for name, kinds in _CANNOT_PREDICT.items() if predicts in kinds}
    if own.get("rescale_betas_zero_snr"):
        unfit.add("PNDM")  # has no such setting, and would begin from the wrong noise
    if max_steps > own.get("original_inference_steps", _LCM_STEPS):
        unfit.add("LCM")
    return tuple(name for name in NOISE_PREDICTING if name not in unfit)


def check_scheduler(wanted: str, usable: tuple[str, ...], own_scheduler: str) -> None:
    """Refuse a sampler that the model cannot be sampled with.

    Diffusers itself builds the scheduler from the foreign configuration and then makes noise.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` and the samplers that are usable.
    """
    if wanted not in usable:
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"scheduler {wanted} cannot sample this model, whose own one is {own_scheduler}, with "
            f"the declared --max-steps; usable: {', '.join(usable)}",
        )


def allowed_schedulers(
    wanted: tuple[str, ...] | None, usable: tuple[str, ...], scheduler: str
) -> tuple[str, ...]:
    """Name the samplers that requests may choose.

    Parameters
    ----------
    wanted
        Those that were declared; None are all that are usable.
    usable
        Those that the model can be sampled with.
    scheduler
        The server's own. Naming it is the same as leaving it out, so it is always allowed.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` and the samplers that are usable, if a declared one is not.
    """
    if wanted is None:
        return usable
    unfit = [name for name in wanted if name not in usable]
    if unfit:
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"--allow-schedulers: {', '.join(unfit)} cannot sample this model with the declared "
            f"--max-steps; usable: {', '.join(usable)}",
        )
    return tuple(name for name in usable if name in (*wanted, scheduler))


class SchedulerFactory:
    """Builds samplers anew for every call: one that an aborted call used remembers where it was.

    Parameters
    ----------
    own_config
        Configuration of the model's own scheduler.
    trailing
        Whether the last timestep of training must be the first one of sampling, as distilled
        models were trained.
    """

    def __init__(self, own_config: Mapping[str, Any], *, trailing: bool) -> None:
        self._own = dict(own_config)
        self._trailing = trailing

    def build(self, name: str) -> Any:
        """Build the sampler of a class name without the suffix ``Scheduler``."""
        scheduler_class = getattr(diffusers, f"{name}Scheduler")
        return scheduler_class.from_config(self._own, **self._overrides(name))

    def _overrides(self, name: str) -> dict[str, Any]:
        """Give what a sampler needs beside what it finds in the configuration."""
        own_class = str(self._own.get("_class_name", ""))
        if own_class.startswith("FlowMatch"):
            if name == "UniPCMultistep":
                return {
                    "prediction_type": "flow_prediction",
                    "use_flow_sigmas": True,
                    "flow_shift": self._own.get("shift", 1.0),
                    "use_dynamic_shifting": self._own.get("use_dynamic_shifting", False),
                }
            return {}
        # PNDM's Runge-Kutta start needs more steps than are asked for; latent models leave it out.
        overrides: dict[str, Any] = {"skip_prk_steps": True} if name == "PNDM" else {}
        if self._trailing and name != "LCM":
            overrides["timestep_spacing"] = "trailing"
        return overrides
