"""What the trained models are made from: data, sizes and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imagegen.miniature.scenes import DEFAULT_FONTS, Look

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to train a model.

    Attributes
    ----------
    seed
        Of the data, of the first weights and of all noise.
    look, layouts, fonts
        Of the scenes.
    vae_channels, vae_steps, vae_batch, vae_rate
        Of the autoencoder: widths of its levels, steps, pictures per step, rate of learning.
    pictures
        How many pictures the denoiser is trained on; their latents are computed once.
    text_steps
        Steps in which the text encoder alone learns to spell before the denoiser begins.
    channels
        Widths of the denoiser's levels.
    attention
        Per level, whether it looks at the prompt.
    steps, batch, rate
        Of the denoiser and the text encoder together.
    dropped
        Share of the prompts that are left empty, for guidance without a classifier.
    average
        Weight of the past in the running average of the weights.
    """

    seed: int = 6
    look: Look = "plain"
    layouts: tuple[str, ...] = ("left", "upper", "shapes")
    fonts: tuple[str, ...] = DEFAULT_FONTS
    vae_channels: tuple[int, ...] = (16, 32, 64)
    vae_steps: int = 3800
    vae_batch: int = 4
    vae_rate: float = 1e-3
    pictures: int = 12_000
    text_steps: int = 300
    channels: tuple[int, ...] = (48, 128, 128)
    attention: tuple[bool, ...] = (False, True, False)
    steps: int = 4400
    batch: int = 16
    rate: float = 8e-4
    dropped: float = 0.1
    average: float = 0.995


RECIPES: Final = {
    "miniature": Recipe(),
    "miniature-shiny": Recipe(
        seed=8,
        look="shiny",
        vae_steps=700,
        vae_rate=5e-4,
        attention=(True, True, False),
        steps=600,
        rate=4e-4,
    ),
}
"""Recipes by the name of the model. The shiny one begins with the trained `miniature`."""
