"""What makes sense for distilled models, which take few steps and little or no guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from imagegen.contract import StartupFailureCode
from imagegen.engines.folder import UPSCALE_CLASSES, ModelFolder
from imagegen.engines.settings import Demand
from imagegen.errors import StartupError

__all__ = ["PRESETS", "Preset", "check_demand", "preset_for"]

_FEW_STEPS: Final = 10
"""More steps than this add cost and no detail, whichever way a model was distilled."""


@dataclass(frozen=True)
class Preset:
    """Defaults and limits of a kind of model.

    Attributes
    ----------
    name
        Value of ``--preset``.
    steps, guidance_scale
        Defaults where none are declared.
    max_steps, guidance_range, schedulers
        What makes sense; None is no limit of the model's own.
    why
        How the kind was recognised, for messages.
    """

    name: str
    steps: int
    guidance_scale: float
    max_steps: int | None = None
    guidance_range: tuple[float, float] | None = None
    schedulers: tuple[str, ...] | None = None
    why: str = "declared with --preset"

    def most_steps(self, demand: Demand) -> int:
        """Give the most steps that a request can ask for."""
        most = demand.max_steps
        return most if self.max_steps is None else min(most, self.max_steps)


_GUIDANCE: Final = {
    "FluxPipeline": 3.5,
    "StableDiffusion3Pipeline": 4.5,
    "StableDiffusionLatentUpscalePipeline": 0.0,
    "StableDiffusionPipeline": 7.5,
    "StableDiffusionUpscalePipeline": 9.0,
    "StableDiffusionXLPipeline": 5.0,
}
"""The usual guidance scale of undistilled models."""

PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset("standard", steps=28, guidance_scale=7.5),
        # Adversarial and progressive distillation (turbo, lightning): guidance is built in.
        Preset("turbo", 4, 0.0, _FEW_STEPS, (0.0, 1.0)),
        # Latent consistency models: their own sampler, weak guidance.
        Preset("lcm", 4, 1.0, _FEW_STEPS, (0.0, 2.0), ("LCM",)),
        # Flux distilled to few steps: its transformer has no input for guidance.
        Preset("schnell", 4, 0.0, _FEW_STEPS, (0.0, 1.0)),
    )
}
"""Values of ``--preset`` beside ``auto``."""


def preset_for(folder: ModelFolder, declared: str = "auto") -> Preset:
    """Give the preset of a model: the declared one, or for ``auto`` what its files tell.

    A model that was distilled without a trace in its configuration, such as SD3.5 Large Turbo, is
    taken for a standard one and has to be declared.
    """
    preset = PRESETS[declared] if declared != "auto" else _recognised(folder)
    if preset.name == "standard":
        return replace(preset, guidance_scale=_GUIDANCE[folder.pipeline_class])
    if preset.name == "lcm" and _denoiser(folder).get("time_cond_proj_dim") is not None:
        # The guidance scale is an input of the model, not a second pass without the prompt.
        return replace(preset, guidance_scale=8.0, guidance_range=(1.0, 15.0))
    return preset


def _denoiser(folder: ModelFolder) -> dict[str, object]:
    return folder.configs.get("unet") or folder.configs.get("transformer") or {}


def _recognised(folder: ModelFolder) -> Preset:
    if folder.pipeline_class in UPSCALE_CLASSES:
        return PRESETS["standard"]
    scheduler, denoiser = folder.configs.get("scheduler", {}), _denoiser(folder)
    if folder.pipeline_class == "FluxPipeline" and not denoiser.get("guidance_embeds"):
        why = "its transformer takes no guidance: guidance_embeds is false"
        return replace(PRESETS["schnell"], why=why)
    if folder.scheduler_class == "LCMScheduler":
        return replace(PRESETS["lcm"], why="its scheduler is LCMScheduler")
    if denoiser.get("time_cond_proj_dim") is not None:
        return replace(PRESETS["lcm"], why="its denoiser takes guidance: time_cond_proj_dim is set")
    if (
        folder.scheduler_class in {"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"}
        and scheduler.get("timestep_spacing") == "trailing"
        # Models retrained for zero terminal SNR need trailing steps too, and are not distilled.
        and scheduler.get("prediction_type", "epsilon") == "epsilon"
        and not scheduler.get("rescale_betas_zero_snr")
    ):
        why = f"its {folder.scheduler_class} has trailing timesteps"
        return replace(PRESETS["turbo"], why=why)
    return PRESETS["standard"]


def check_demand(preset: Preset, demand: Demand) -> None:
    """Refuse defaults that make no sense for the model.

    A limit on requests that is wider than what makes sense is no mistake: the narrower one holds.

    Raises
    ------
    StartupError
        With code ``ModelInvalid``, the limit, and how the model was recognised.
    """
    mistakes = []
    if preset.max_steps is not None and demand.steps > preset.max_steps:
        mistakes.append(f"at most {preset.max_steps} steps make sense, --steps is {demand.steps}")
    if preset.guidance_range is not None:
        low, high = preset.guidance_range
        if not low <= demand.guidance_scale <= high:
            mistakes.append(
                f"guidance must be {low:g} to {high:g}, --guidance-scale is "
                f"{demand.guidance_scale:g}"
            )
    if mistakes:
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"the model is of the kind {preset.name} ({preset.why}): {'; '.join(mistakes)}; "
            "if it is not distilled, declare --preset standard",
        )
