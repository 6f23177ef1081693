"""The denoiser, trained together with the text encoder on latents that are computed once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import diffusers
import torch
from torch.nn import functional

from imagegen.miniature.scenes import HEIGHT, WIDTH
from imagegen.miniature.training.attention import Questions, letter_columns
from imagegen.miniature.training.averages import Average
from imagegen.miniature.training.checkpoints import Checkpoint
from imagegen.miniature.training.data import Corpus, to_tensor
from imagegen.miniature.training.folder import NOISE_SCHEDULE, assemble
from imagegen.miniature.training.optimizing import Optimizer, autocast, best_device, step_generator
from imagegen.miniature.training.progress import Progress
from imagegen.miniature.training.recipes import Recipe
from imagegen.miniature.training.sheets import draw_sheet, unseen_prompts
from imagegen.miniature.training.text import TEXT_WIDTH, properties, token_ids
from imagegen.miniature.training.vae import LATENT_CHANNELS

__all__ = ["Lessons", "build_unet", "encode_corpus", "noise_scheduler", "train_denoiser"]

_HEADS: Final = 4
_SHEET_INTERVAL: Final = 240.0
_FACTOR: Final = 4
_QUESTIONS_WEIGHT: Final = 0.1


class Lesson(NamedTuple):
    """A batch: some of the lessons, and whether their prompts are given."""

    latents: torch.Tensor
    tokens: torch.Tensor
    letters: torch.Tensor
    properties: torch.Tensor
    asked: torch.Tensor


@dataclass(frozen=True)
class Lessons:
    """What the denoiser learns from.

    Attributes
    ----------
    latents
        Of the pictures.
    tokens, empty
        Of several wordings of each, and of a prompt without words.
    letters, properties
        What is to be seen; see :mod:`imagegen.miniature.training.attention`.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    empty: torch.Tensor
    letters: torch.Tensor
    properties: torch.Tensor

    def draw(self, generator: torch.Generator, size: int, dropped: float) -> Lesson:
        """Choose `size` latents with tokens, a share `dropped` of them without a prompt."""
        chosen = torch.randint(len(self.latents), (size,), generator=generator)
        wording = torch.randint(self.tokens.shape[1], (size,), generator=generator)
        without = torch.rand(size, generator=generator) < dropped
        tokens = torch.where(without[:, None], self.empty, self.tokens[chosen, wording])
        return Lesson(
            self.latents[chosen], tokens, self.letters[chosen], self.properties[chosen], ~without
        )


def build_unet(recipe: Recipe) -> Any:
    """Build a denoiser with random weights."""
    down = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
    up = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
    return diffusers.UNet2DConditionModel(
        sample_size=(HEIGHT // _FACTOR, WIDTH // _FACTOR),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=recipe.channels,
        layers_per_block=1,
        down_block_types=tuple(down[looks] for looks in recipe.attention),
        up_block_types=tuple(up[looks] for looks in reversed(recipe.attention)),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=_HEADS,
        norm_num_groups=16,
    )


def noise_scheduler() -> Any:
    """Give what adds noise to latents in training."""
    return diffusers.DDPMScheduler(**NOISE_SCHEDULE)


@torch.no_grad()
def encode_corpus(vae: Any, corpus: Corpus, *, batch: int = 64) -> Lessons:
    """Compute the latents of all pictures: the means of the posterior, scaled."""
    device = next(vae.parameters()).device
    scale = vae.config.scaling_factor
    latents = []
    for start in range(0, len(corpus.pictures), batch):
        pictures = to_tensor(corpus.pictures[start : start + batch]).to(device)
        with autocast(device):
            mean = vae.encode(pictures).latent_dist.mean
        latents.append((mean.float() * scale).cpu())
    wordings = len(corpus.prompts[0])
    tokens = token_ids([wording for wordings in corpus.prompts for wording in wordings])
    return Lessons(
        torch.cat(latents),
        tokens.view(-1, wordings, tokens.shape[1]),
        token_ids([""])[0],
        letter_columns(corpus.scenes),
        torch.tensor([properties(scene) for scene in corpus.scenes]),
    )


def _loss(
    unet: Any, encoder: Any, questions: Questions, *, lesson: Lesson, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    noise = noise_scheduler()
    device = next(unet.parameters()).device
    latents = lesson.latents
    random = torch.randn(latents.shape, generator=generator)
    times = torch.randint(noise.config.num_train_timesteps, (len(latents),), generator=generator)
    noisy = noise.add_noise(latents, random, times).to(device)
    wanted = noise.get_velocity(latents, random, times).to(device)
    with autocast(device):
        states = encoder(lesson.tokens.to(device)).last_hidden_state
        found = unet(noisy, times.to(device), states).sample
    answers = questions.loss(
        lesson.letters.to(device), lesson.properties.to(device), lesson.asked.to(device)
    )
    return functional.mse_loss(found.float(), wanted), answers


def train_denoiser(
    unet: Any, encoder: Any, *, vae: Any, lessons: Lessons, recipe: Recipe, work: Path
) -> tuple[Any, Any]:
    """Train the denoiser and the text encoder, or go on with them; give their averages."""
    device = best_device()
    unet, encoder = unet.to(device), encoder.to(device).train()
    unet.train()
    averages = Average(unet, recipe.average), Average(encoder, recipe.average)
    questions = Questions(unet).to(device)
    optimizer = Optimizer(
        [*unet.parameters(), *encoder.parameters(), *questions.parameters()],
        peak=recipe.rate,
        total=recipe.steps,
        warmup=min(200, recipe.steps),
    )
    checkpoint = Checkpoint(
        work / "denoiser.pt",
        {
            "unet": unet,
            "encoder": encoder,
            "averaged_unet": averages[0],
            "averaged_encoder": averages[1],
            "questions": questions,
            "optimizer": optimizer,
        },
    )
    start = checkpoint.step
    pipeline = assemble(averages[0].module, vae, averages[1].module)
    prompts = unseen_prompts(24, look=recipe.look, layouts=recipe.layouts)
    record, shown = work / "progress.jsonl", time.monotonic()
    with checkpoint, Progress("denoiser", recipe.steps, start=start, record=record) as progress:
        for step in range(start, recipe.steps):
            generator = step_generator(recipe.seed, step)
            lesson = lessons.draw(generator, recipe.batch, recipe.dropped)
            loss, answers = _loss(unet, encoder, questions, lesson=lesson, generator=generator)
            optimizer.step(loss + _QUESTIONS_WEIGHT * answers, step)
            averages[0].update(unet, step)
            averages[1].update(encoder, step)
            checkpoint.advance()
            progress.advance(float(loss.detach()), answers=float(answers.detach()))
            if time.monotonic() - shown > _SHEET_INTERVAL:
                sheet = work / f"sheet-{step + 1:05d}.png"
                draw_sheet(pipeline, prompts, sheet, steps=12, guidance=2.0)
                shown = time.monotonic()
    return averages[0].module, averages[1].module
