"""Trained parts as an ordinary pipeline, in memory and as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import diffusers
import torch

from imagegen.miniature.scenes import tokenizer

__all__ = ["NOISE_SCHEDULE", "assemble", "save_folder"]

NOISE_SCHEDULE: Final[dict[str, Any]] = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
"""How noise is added. At the last step hardly anything of the picture is left (a signal-to-noise
ratio of 4e-5), so that sampling from pure noise gets the flat grounds right with any scheduler, and
prediction of the velocity is well defined there."""


def assemble(unet: Any, vae: Any, encoder: Any, scheduler: Any | None = None) -> Any:
    """Put trained parts together to a Stable Diffusion pipeline in evaluation mode.

    Parameters
    ----------
    unet, vae, encoder
        The parts.
    scheduler
        Default: multistep DPM-Solver++ of the second order.
    """
    pipeline = diffusers.StableDiffusionPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        tokenizer=tokenizer(),
        scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(**NOISE_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_folder(pipeline: Any, out: Path) -> None:
    """Save a pipeline with weights in half precision, as safetensors and JSON only."""
    pipeline.to("cpu", torch.float16).save_pretrained(out, safe_serialization=True)
    for config in out.glob("*/config.json"):  # where parts were read from concerns nobody
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    # Without being asked for a precision, transformers computes in the one it finds here, and
    # diffusers in 32 bits.
    config = out / "text_encoder" / "config.json"
    settings = json.loads(config.read_text()) | {"dtype": "float32"}
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
