"""The autoencoder: pictures of 64 x 128 pixels as 4 numbers per 4 x 4 pixels, and back.

Two choices decide whether letters can be learned from its latents and are sharp at the end:

* the posterior is narrow by construction. Its deviation is trained towards a fixed small one, and
  the size of the means is limited by a mild penalty, so that there is no weight of a divergence to
  be found by trial;
* the decoder is trained on latents with noise added, because a denoiser's latents are never exact.

Edges weigh more than areas in the loss: what a reader of text does not forgive is blur.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from torch.nn import functional

from imagegen.miniature.training.averages import Average
from imagegen.miniature.training.checkpoints import Checkpoint
from imagegen.miniature.training.data import picture_batches
from imagegen.miniature.training.optimizing import (
    Optimizer,
    autocast,
    best_device,
    step_generator,
)
from imagegen.miniature.training.progress import Progress
from imagegen.miniature.training.recipes import Recipe

__all__ = ["LATENT_CHANNELS", "build_vae", "reconstruction_loss", "train_vae"]

LATENT_CHANNELS: Final = 4
_MOST_NOISE: Final = 0.25
_LOG_VARIANCE: Final = -5.0
_MEAN_WEIGHT: Final = 2e-3
_VARIANCE_WEIGHT: Final = 1e-3
_EDGE_WEIGHT: Final = 4.0
_GRADIENT_WEIGHT: Final = 1.0


def build_vae(channels: tuple[int, ...]) -> Any:
    """Build an AutoencoderKL with random weights whose levels have `channels`."""
    blocks = len(channels)
    return diffusers.AutoencoderKL(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
    )


def _slopes(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Compare pictures: mean error, absolute and squared, higher near edges, and that of slopes.

    The absolute error alone is patient with a rare colour that is taken for another one.
    """
    across, down = _slopes(wanted)
    contrast = functional.pad(across.abs(), (0, 1)) + functional.pad(down.abs(), (0, 0, 0, 1))
    near = functional.max_pool2d(contrast.amax(1, keepdim=True), 3, stride=1, padding=1)
    weight = 1 + _EDGE_WEIGHT * near.clamp(max=1)
    difference = (made - wanted).abs()
    error = ((difference + difference.square()) * weight).mean()
    made_across, made_down = _slopes(made)
    slopes = (made_across - across).abs().mean() + (made_down - down).abs().mean()
    return error + _GRADIENT_WEIGHT * slopes


def _loss(vae: Any, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    device = pictures.device
    with autocast(device):
        posterior = vae.encode(pictures).latent_dist
        mean: torch.Tensor = posterior.mean.float()
        size = torch.rand((len(mean), 1, 1, 1), generator=generator) * _MOST_NOISE
        noise = size * torch.randn(mean.shape, generator=generator)
        made = vae.decode(mean + noise.to(device)).sample.float()
    loss = reconstruction_loss(made, pictures)
    spread: torch.Tensor = (posterior.logvar.float() - _LOG_VARIANCE).square().mean()
    return loss + _MEAN_WEIGHT * mean.square().mean() + _VARIANCE_WEIGHT * spread


@torch.no_grad()
def _measure_scale(vae: Any, recipe: Recipe, device: torch.device) -> float:
    """Give what latents must be multiplied by to have a deviation of one."""
    batches = picture_batches(
        seed=recipe.seed,
        start=0,
        size=64,
        look=recipe.look,
        layouts=recipe.layouts,
        fonts=recipe.fonts,
    )
    latents = vae.encode(next(batches).to(device)).latent_dist.mean
    return float(1 / latents.float().std())


def train_vae(vae: Any, recipe: Recipe, work: Path) -> Any:
    """Train an autoencoder, or go on with it; give its average."""
    device = best_device()
    vae = vae.to(device).train()
    average = Average(vae, 0.995)
    optimizer = Optimizer(
        vae.parameters(), peak=recipe.vae_rate, total=recipe.vae_steps, warmup=50, decay=0.0
    )
    parts = {"vae": vae, "average": average, "optimizer": optimizer}
    checkpoint = Checkpoint(work / "vae.pt", parts)
    start = checkpoint.step
    batches = picture_batches(
        seed=recipe.seed,
        start=start,
        size=recipe.vae_batch,
        look=recipe.look,
        layouts=recipe.layouts,
        fonts=recipe.fonts,
    )
    record = work / "progress.jsonl"
    progress = Progress("vae", recipe.vae_steps, start=start, record=record)
    with checkpoint, progress:
        for step in range(start, recipe.vae_steps):
            loss = _loss(vae, next(batches).to(device), step_generator(recipe.seed, step))
            optimizer.step(loss, step)
            average.update(vae, step)
            checkpoint.advance()
            progress.advance(float(loss.detach()))
    trained: Any = average.module
    trained.register_to_config(scaling_factor=_measure_scale(trained, recipe, device))
    return trained
