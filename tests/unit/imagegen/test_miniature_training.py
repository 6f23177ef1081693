"""Small trainings from nothing: seconds, on one thread."""

from __future__ import annotations

import io
import itertools
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from imagegen.engines.folder import check_folder
from imagegen.engines.presets import preset_for
from imagegen.miniature.scenes import draw, scenes
from imagegen.miniature.training import progress
from imagegen.miniature.training.attention import Questions, letter_columns
from imagegen.miniature.training.data import picture_batches
from imagegen.miniature.training.denoiser import build_unet
from imagegen.miniature.training.distillation import (
    Distillation,
    clean_part,
    distil,
    teacher_outcome,
)
from imagegen.miniature.training.folder import NOISE_SCHEDULE
from imagegen.miniature.training.optimizing import rate
from imagegen.miniature.training.recipes import RECIPES, Recipe
from imagegen.miniature.training.runs import extend, train
from imagegen.miniature.training.sheets import sample
from imagegen.miniature.training.text import build_text_encoder
from imagegen.miniature.training.vae import build_vae, reconstruction_loss, train_vae

SMALL = Recipe(
    layouts=("left",),
    vae_channels=(8, 16, 16),
    vae_steps=40,
    vae_batch=2,
    pictures=64,
    text_steps=30,
    channels=(16, 32),
    attention=(False, True),
    steps=40,
    batch=8,
)


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(SMALL, work=folder / "work", out=folder / "model")
    return folder


def losses(folder: Path, stage: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["stage"] == stage]


@pytest.mark.parametrize(("stage", "share"), [("vae", 0.9), ("text", 0.9), ("denoiser", 0.95)])
def test_the_loss_of_every_stage_falls(trained: Path, stage: str, share: float) -> None:
    course = losses(trained / "work", stage)

    assert course[-1] < share * course[0]


def test_the_folder_is_loaded_by_diffusers_alone(trained: Path) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        trained / "model", local_files_only=True, use_safetensors=True
    )

    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    files = [path for path in (trained / "model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_pictures_have_their_own_size_and_are_equal_for_equal_seeds(trained: Path) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(trained / "model")
    pipeline.set_progress_bar_config(disable=True)
    unknown = 'ein "ÄPFEL" \N{SNOWMAN} 42 ' * 20

    first, again = (
        sample(pipeline, ['"LUMO" in red', unknown], steps=2, guidance=3.0) for _ in range(2)
    )

    assert first[0].shape == (64, 128, 3)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_latents_have_a_deviation_of_one_once_they_are_scaled(trained: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(trained / "model" / "vae")
    pictures = next(picture_batches(seed=5, start=0, size=64, look="plain", layouts=("left",)))

    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor

    assert float(latents.std()) == pytest.approx(1, rel=0.2)


def test_a_batch_is_the_same_whether_those_before_it_are_drawn_or_skipped() -> None:
    batches = partial(picture_batches, seed=1, size=512, look="plain", layouts=("left", "shapes"))
    every = list(itertools.islice(batches(start=0), 4))

    assert torch.equal(next(batches(start=3)), every[3])
    assert not torch.equal(every[1], every[3])


def test_a_student_tells_servers_that_it_takes_four_steps_without_guidance(
    trained: Path, tmp_path: Path
) -> None:
    settings = Distillation(steps=2, batch=2)

    distil(trained / "model", settings, SMALL, work=tmp_path / "work", out=tmp_path / "turbo")

    preset = preset_for(check_folder(tmp_path / "turbo"))
    assert (preset.name, preset.steps, preset.guidance_scale) == ("lcm", 4, 1.0)
    assert losses(tmp_path / "work", "student")


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_teacher_that_knows_the_picture_arrives_at_it(steps: int) -> None:
    scheduler = diffusers.DDPMScheduler(**NOISE_SCHEDULE)
    ratio = scheduler.alphas_cumprod
    random = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn((2, 4, 4, 4), generator=random) for _ in range(2))
    start = torch.full((2,), 499)
    noisy = scheduler.add_noise(picture, noise, start)

    def knows(seen: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        kept: torch.Tensor = ratio[times].view(-1, 1, 1, 1)
        return (kept.sqrt() * seen - picture) / (1 - kept).sqrt()

    arrived = teacher_outcome(knows, noisy, 499, steps=steps, ratio=ratio)

    assert torch.allclose(arrived, picture, atol=1e-4)


def test_the_clean_part_undoes_the_noise_and_velocity_of_diffusers() -> None:
    scheduler = diffusers.DDPMScheduler(**NOISE_SCHEDULE)
    random = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn((2, 4, 4, 4), generator=random) for _ in range(2))
    times = torch.tensor([300, 999])

    clean = clean_part(
        scheduler.add_noise(picture, noise, times),
        scheduler.get_velocity(picture, noise, times),
        times,
        scheduler.alphas_cumprod,
    )

    assert torch.allclose(clean, picture, atol=1e-4)


def fresh_vae() -> Any:
    torch.manual_seed(0)
    return build_vae(SMALL.vae_channels)


class Interruption(io.StringIO):
    """A terminal at which somebody presses Ctrl-C at a line of the report."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def write(self, text: str) -> int:
        if self._at in text:
            raise KeyboardInterrupt
        return super().write(text)


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, vae_steps=6)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    wanted = train_vae(fresh_vae(), recipe, whole).state_dict()

    with monkeypatch.context() as patch:
        patch.setattr(progress, "_INTERVAL", 0.0)
        patch.setattr(sys, "stderr", Interruption("vae 3/6"))
        with pytest.raises(KeyboardInterrupt):
            train_vae(fresh_vae(), recipe, broken)
    resumed = train_vae(fresh_vae(), recipe, broken).state_dict()

    assert all(torch.equal(resumed[name], wanted[name]) for name in wanted)


def test_another_seed_trains_on_other_pictures(tmp_path: Path) -> None:
    made = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        recipe = replace(SMALL, seed=seed, vae_steps=1)
        made.append(train_vae(fresh_vae(), recipe, folder).state_dict())

    assert not torch.equal(made[0]["decoder.conv_in.weight"], made[1]["decoder.conv_in.weight"])


def test_a_larger_denoiser_begins_with_what_a_trained_one_does() -> None:
    torch.manual_seed(0)
    trained = build_unet(SMALL).eval()
    larger = build_unet(replace(SMALL, attention=(True, True))).eval()
    seen = torch.randn((1, 4, 16, 32)), torch.tensor([500]), torch.randn((1, 32, 128))

    extend(larger, trained)

    with torch.no_grad():
        assert torch.equal(larger(*seen).sample, trained(*seen).sample)


def test_a_training_can_begin_with_a_trained_model(trained: Path, tmp_path: Path) -> None:
    none = replace(SMALL, vae_steps=0, text_steps=0, steps=0)

    train(none, work=tmp_path / "work", out=tmp_path / "model", start=trained / "model")

    first, second = (
        diffusers.DiffusionPipeline.from_pretrained(folder / "model")
        for folder in (trained, tmp_path)
    )
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    one, other = (
        sample(pipeline, ['"LUMO" in red'], steps=2, guidance=3.0)[0]
        for pipeline in (first, second)
    )
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 3  # the scale is measured anew


def test_a_denoiser_of_other_widths_is_no_start() -> None:
    with pytest.raises(ValueError, match="is a weight of one of the models only"):
        extend(build_unet(SMALL), build_unet(replace(SMALL, attention=(True, True))))


def test_the_letters_of_a_word_are_asked_for_where_they_are_drawn() -> None:
    scene = next(scenes("train", seed=3, count=1, layouts=("left",)))
    ground = draw(replace(scene, words=("",)), np.random.default_rng(0))
    drawn = draw(scene, np.random.default_rng(0))

    columns = letter_columns([scene])[0]

    written = (drawn != ground).any(axis=(0, 2)).reshape(-1, 4).any(axis=1)
    assert set(np.flatnonzero(written)) <= set(np.flatnonzero(columns.numpy() < 26))
    spelled = [chr(ord("A") + int(letter)) for letter in columns[2::4] if letter < 26]
    assert "".join(spelled) == scene.words[0]


def test_words_that_do_not_begin_at_the_left_are_not_asked_for() -> None:
    scene = next(scenes("train", seed=3, count=1, layouts=("centre",)))

    assert (letter_columns([scene]) == -100).all()


def test_questions_are_put_to_the_features_of_training_only() -> None:
    unet = build_unet(SMALL)
    questions = Questions(unet)
    seen = torch.zeros((2, 4, 16, 32)), torch.tensor([500, 500]), torch.zeros((2, 32, 128))
    wanted = torch.zeros((2, 32), dtype=torch.long), torch.zeros((2, 6), dtype=torch.long)

    unet.train()(*seen)
    asked = questions.loss(*wanted, torch.tensor([True, True]))
    unet(*seen)
    less = questions.loss(*wanted, torch.tensor([False, False]))
    unet.eval()(*seen)

    assert asked > less > 0
    with pytest.raises(KeyError):
        questions.loss(*wanted, torch.tensor([True, True]))


def test_progress_tells_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "progress.jsonl"
    with progress.Progress("vae", 8, start=2, record=record) as reported:
        for _ in range(3):
            reported.advance(0.5)

    assert "vae 5/8 62 % loss 0.5000" in capsys.readouterr().err
    assert [json.loads(line)["step"] for line in record.read_text().splitlines()] == [3, 4, 5]


def test_the_rate_rises_to_its_peak_and_falls_to_a_hundredth_of_it() -> None:
    rates = [rate(step, 100, peak=1.0, warmup=10) for step in range(101)]

    assert rates[9] == max(rates) == 1.0
    assert rates[100] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_loss_forgives_areas_more_than_edges() -> None:
    wanted = torch.full((1, 3, 8, 16), -1.0)
    wanted[..., 8:] = 1.0
    beside, far = wanted.clone(), wanted.clone()
    beside[..., 7] += 0.5
    far[..., 0] += 0.5

    assert reconstruction_loss(wanted, wanted) == 0
    assert reconstruction_loss(beside, wanted) > reconstruction_loss(far, wanted) > 0


def test_hardly_anything_is_left_of_a_picture_at_the_last_step_of_noise() -> None:
    kept = diffusers.DDPMScheduler(**NOISE_SCHEDULE).alphas_cumprod[-1]

    assert kept / (1 - kept) < 1e-4


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_models_of_at_most_7_million_weights(name: str) -> None:
    recipe = RECIPES[name]
    with torch.device("meta"):
        parts = (build_unet(recipe), build_vae(recipe.vae_channels), build_text_encoder())

    assert sum(weights.numel() for part in parts for weights in part.parameters()) < 7_000_000
