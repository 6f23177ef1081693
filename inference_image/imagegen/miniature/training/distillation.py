"""Distillation to four steps without guidance, by the outcome of the teacher's whole way.

The student starts as the teacher. It learns to say at once, at each of its four levels of noise,
where the teacher arrives in several deterministic steps with guidance. It is sampled as a latent
consistency model: say where the way ends, add noise of the next level, say it again.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from torch.nn import functional

from imagegen.miniature.training.averages import Average
from imagegen.miniature.training.checkpoints import Checkpoint
from imagegen.miniature.training.data import make_corpus
from imagegen.miniature.training.denoiser import Lessons, encode_corpus
from imagegen.miniature.training.folder import NOISE_SCHEDULE, assemble, save_folder
from imagegen.miniature.training.optimizing import Optimizer, autocast, best_device, step_generator
from imagegen.miniature.training.progress import Progress
from imagegen.miniature.training.recipes import Recipe

__all__ = ["Distillation", "clean_part", "distil", "student_scheduler", "teacher_outcome"]

_STUDENT_STEPS: Final = 4
_TEACHER_STEPS: Final = (6, 4, 3, 2)
"""Steps of the teacher from each of the student's levels of noise."""


@dataclass(frozen=True)
class Distillation:
    """How to distil.

    Attributes
    ----------
    seed
        Of the data and the noise.
    steps, batch, rate
        Of the training.
    guidance
        Guidance scale of the teacher that the student learns to do without; 1 is none.
    """

    seed: int = 7
    steps: int = 300
    batch: int = 16
    rate: float = 2e-4
    guidance: float = 1.5


def student_scheduler() -> Any:
    """Give the sampler of distilled models; its files tell servers that four steps suffice."""
    return diffusers.LCMScheduler(**NOISE_SCHEDULE, clip_sample=False)


def _levels(ratio: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kept = ratio[times].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def clean_part(
    noisy: torch.Tensor, velocity: torch.Tensor, times: torch.Tensor, ratio: torch.Tensor
) -> torch.Tensor:
    """Give what is left of `noisy` latents without the noise, by the velocity that was predicted.

    Parameters
    ----------
    noisy, velocity
        Latents, and the prediction for them.
    times
        Their timesteps.
    ratio
        Share of the picture's variance at each timestep: the scheduler's ``alphas_cumprod``.
    """
    signal, noise = _levels(ratio, times)
    return signal * noisy - noise * velocity


class _Guided:
    """The teacher: its prediction with guidance."""

    def __init__(self, unet: Any, states: torch.Tensor, empty: torch.Tensor, scale: float) -> None:
        self._unet, self._states, self._empty, self._scale = unet, states, empty, scale

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        with autocast(noisy.device):
            found: torch.Tensor = self._unet(noisy, times, self._states).sample.float()
            if self._scale <= 1:
                return found
            without: torch.Tensor = self._unet(noisy, times, self._empty).sample.float()
        return without + self._scale * (found - without)


@torch.no_grad()
def teacher_outcome(
    teacher: Any, noisy: torch.Tensor, start: int, *, steps: int, ratio: torch.Tensor
) -> torch.Tensor:
    """Give where a teacher arrives from `noisy` latents of timestep `start` in DDIM steps.

    Parameters
    ----------
    teacher
        Called with latents and timesteps, gives the velocity.
    noisy, start, steps, ratio
        As in :func:`clean_part`; `steps` are spaced evenly.
    """
    grid = [round(start * (steps - index) / steps) for index in range(steps + 1)]
    clean = noisy
    for now, later in itertools.pairwise(grid):
        times = torch.full((len(noisy),), now, device=noisy.device)
        velocity = teacher(noisy, times)
        clean = clean_part(noisy, velocity, times, ratio)
        signal, noise = _levels(ratio, times)
        random = noise * noisy + signal * velocity
        signal, noise = _levels(ratio, torch.full_like(times, later))
        noisy = signal * clean + noise * random
    return clean


def _loss(
    student: Any, pipeline: Any, lessons: Lessons, settings: Distillation, step: int
) -> torch.Tensor:
    device = next(student.parameters()).device
    generator = step_generator(settings.seed, step)
    scheduler = student_scheduler()
    scheduler.set_timesteps(_STUDENT_STEPS)
    ratio = scheduler.alphas_cumprod.to(device)
    level = int(torch.randint(_STUDENT_STEPS, (1,), generator=generator))
    lesson = lessons.draw(generator, settings.batch, 0.0)
    latents, tokens = lesson.latents, lesson.tokens
    random = torch.randn(latents.shape, generator=generator)
    times = scheduler.timesteps[level].repeat(len(latents))
    noisy = scheduler.add_noise(latents, random, times).to(device)
    times = times.to(device)
    with torch.no_grad():
        both = torch.cat([tokens, lessons.empty.expand_as(tokens)]).to(device)
        states, empty = pipeline.text_encoder(both).last_hidden_state.chunk(2)
    wanted = teacher_outcome(
        _Guided(pipeline.unet, states, empty, settings.guidance),
        noisy,
        int(times[0]),
        steps=_TEACHER_STEPS[level],
        ratio=ratio,
    )
    with autocast(device):
        velocity = student(noisy, times, states).sample.float()
    return functional.mse_loss(clean_part(noisy, velocity, times, ratio), wanted)


def distil(teacher: Path, settings: Distillation, recipe: Recipe, *, work: Path, out: Path) -> None:
    """Distil a trained model and save the student; an interrupted one goes on where it was.

    Parameters
    ----------
    teacher
        Folder of the trained model.
    settings
        How.
    recipe
        What the teacher was trained with: it tells the data.
    work, out
        As in :func:`imagegen.miniature.training.runs.train`.
    """
    work.mkdir(parents=True, exist_ok=True)
    device = best_device()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        teacher, torch_dtype=torch.float32, local_files_only=True
    ).to(device)
    corpus = make_corpus(
        seed=settings.seed,
        count=recipe.pictures,
        look=recipe.look,
        layouts=recipe.layouts,
        fonts=recipe.fonts,
    )
    lessons = encode_corpus(pipeline.vae, corpus)
    student = copy.deepcopy(pipeline.unet).train()
    average = Average(student, recipe.average)
    optimizer = Optimizer(
        student.parameters(),
        peak=settings.rate,
        total=settings.steps,
        warmup=min(50, settings.steps),
    )
    parts = {"student": student, "average": average, "optimizer": optimizer}
    checkpoint = Checkpoint(work / "student.pt", parts)
    start, record = checkpoint.step, work / "progress.jsonl"
    with checkpoint, Progress("student", settings.steps, start=start, record=record) as progress:
        for step in range(start, settings.steps):
            loss = _loss(student, pipeline, lessons, settings, step)
            optimizer.step(loss, step)
            average.update(student, step)
            checkpoint.advance()
            progress.advance(float(loss.detach()))
    made = assemble(average.module, pipeline.vae, pipeline.text_encoder, student_scheduler())
    save_folder(made, out)
