"""The trained models of the examples: ordinary, small, safe folders, each with an honest card."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imagegen.engines.digest import folder_digest
from imagegen.engines.folder import check_folder, list_files
from imagegen.miniature.evaluation.grid import BASE
from imagegen.miniature.evaluation.results import Result, read_results, results_file

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "examples" / "models"
EVALUATION = ROOT / "benchmarks" / "results-models"
CARD = "README.md"
NAMES = ("miniature", "miniature-shiny", "miniature-turbo")

PLAIN = """
import hashlib, json, sys
import diffusers, torch

def picture(pipeline, prompt, seed):
    made = pipeline(
        prompt, width=128, height=64, num_inference_steps=2, guidance_scale=2.0, output_type="np",
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return {"digest": hashlib.sha256(made.tobytes()).hexdigest(), "shape": list(made.shape)}

torch.set_num_threads(1)
found = {}
for folder in sys.argv[1:]:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [
        'the word "LUMO" in red on white', "", "una ciudad \\u6e2f \\U0001f642 <|q|>", "w " * 99
    ]
    found[folder] = [picture(pipeline, prompt, 7) for prompt in [prompts[0], *prompts]]
    found[folder].append(picture(pipeline, prompts[0], 8))
print(json.dumps([found, sorted(name for name in sys.modules if name.startswith("imagegen"))]))
"""


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Give what diffusers makes of the folders in a process that knows nothing of this project."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, *(str(MODELS / name) for name in NAMES)],
        env={**environment, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found, ours = json.loads(done.stdout.splitlines()[-1])
    return {Path(folder).name: pictures for folder, pictures in found.items()}, ours


def card_of(name: str) -> str:
    return (MODELS / name / CARD).read_text(encoding="utf-8")


def base_of(name: str) -> Result:
    results = [
        result
        for result in read_results(results_file(EVALUATION, name))
        if result.varied == BASE and result.batch_size == 1
    ]
    return max(results, key=lambda result: result.words)


def test_there_are_three_models_with_a_card_each() -> None:
    assert sorted(path.name for path in MODELS.iterdir() if path.is_dir()) == list(NAMES)
    assert all(card_of(name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_safetensors_json_and_a_card_and_at_most_14_mb(name: str) -> None:
    files = [path for path in (MODELS / name).rglob("*") if path.is_file()]

    assert {path.suffix for path in files if path.name != CARD} == {".safetensors", ".json"}
    assert sum(path.stat().st_size for path in files) <= 14_000_000


def test_all_models_together_take_at_most_40_mb() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 40_000_000


@pytest.mark.parametrize("name", NAMES)
def test_plain_diffusers_loads_a_folder_and_repeats_its_pictures(
    plain: tuple[dict[str, list[dict[str, Any]]], list[str]], name: str
) -> None:
    pictures, ours = plain
    first, again, *_, other_seed = pictures[name]

    assert ours == [], "no code of this project was loaded"
    assert first == again
    assert first["digest"] != other_seed["digest"]
    assert first["shape"] == [64, 128, 3]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_words_and_long_and_empty_prompts_make_a_picture_too(
    plain: tuple[dict[str, list[dict[str, Any]]], list[str]], name: str
) -> None:
    pictures, _ = plain

    assert all(picture["shape"] == [64, 128, 3] for picture in pictures[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_how_the_model_was_made_and_what_it_cannot_do(name: str) -> None:
    card = card_of(name)

    for row in ("Data", "Seed", "Command", "Time", "Licence", "Digest"):
        assert re.search(rf"^\| {row} \| \S", card, re.MULTILINE), f"no row {row}"
    assert re.search(r"`imagegen miniature (train|distil) \S+ [^`]*--out ", card)
    assert "## What it cannot do" in card
    assert "## Evaluation" in card


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_evaluation_and_the_card_are_about_these_very_weights(name: str) -> None:
    files = [file for file in list_files(MODELS / name) if file != CARD]
    digest = folder_digest(MODELS / name, files)
    results = read_results(results_file(EVALUATION, name))

    assert digest in card_of(name)
    assert results
    assert {result.digest for result in results} == {digest}


@pytest.mark.parametrize("name", NAMES)
def test_the_server_takes_a_folder(name: str) -> None:
    assert check_folder(MODELS / name).pipeline_class == "StableDiffusionPipeline"


def test_the_miniature_and_its_turbo_spell_and_the_shiny_one_does_not() -> None:
    miniature, shiny, turbo = (base_of(name) for name in NAMES)

    assert min(result.words for result in (miniature, shiny, turbo)) >= 100
    assert (miniature.exact or 0) >= 0.95
    assert (turbo.exact or 0) >= 0.93
    assert (turbo.steps or 99) <= 4
    assert (shiny.exact or 1) <= 0.8
