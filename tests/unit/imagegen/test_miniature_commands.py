from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imagegen import contract
from imagegen.cli import main
from imagegen.miniature.evaluation.generating import Model
from imagegen.miniature.scenes import is_held_out, scenes


def run(*arguments: str) -> int:
    return main(["miniature", *arguments])


def test_prompts_are_json_lines_of_what_must_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--split", "heldout", "--seed", "5", "--count", "30"]
    assert run("prompts", *options) == 0
    printed = capsys.readouterr().out
    records = [json.loads(line) for line in printed.splitlines()]
    assert len(records) == 30
    chosen = list(scenes("heldout", seed=5, count=30))
    for record, scene in zip(records, chosen, strict=True):
        assert is_held_out(scene)
        assert record["words"] == (list(scene.words) or None)
        assert record["count"] == (scene.count or None)
        assert (record["shape"], record["colour"], record["ground"]) == (
            scene.shape,
            scene.colour,
            scene.ground,
        )
        assert all(f'"{word}"' in record["prompt"] for word in scene.words)
    assert any(record["words"] is None for record in records)

    assert run("prompts", *options) == 0
    assert capsys.readouterr().out == printed


def test_a_sheet_is_a_png_of_drawn_controls_or_of_a_model(
    model_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--count", "4", "--columns", "2"]
    assert run("sheet", "--out", str(tmp_path / "drawn.png"), *options) == 0
    model = ["--model", str(model_folder("sd")), "--steps", "1", "--guidance-scale", "1"]
    assert run("sheet", "--out", str(tmp_path / "new" / "model.png"), *options, *model) == 0
    assert f"{tmp_path / 'drawn.png'}: 4 pictures" in capsys.readouterr().out
    with Image.open(tmp_path / "drawn.png") as one, Image.open(tmp_path / "new/model.png") as two:
        assert one.format == two.format == "PNG"
        assert one.size == two.size
        assert one.tobytes() != two.tobytes()


def test_evaluate_writes_tables_and_plots_and_prints_the_eyes_own_error(
    model_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder("sd")
    options = ["--count", "2", "--few", "1", "--steps", "1", "--guidance-scale", "1"]
    asked = ["--model", str(folder), "--out", str(tmp_path), "--vary", "none", *options]
    assert run("evaluate", *asked) == 0
    printed = capsys.readouterr().out
    assert "## drawn controls" in printed
    assert "| 1 steps, guidance 1, DDIM, Float32, batch 1 | 2 |" in printed
    files = {path.name for path in tmp_path.iterdir()}
    wanted = {
        "README.md",
        "choices.svg",
        "cost.svg",
        "drawn.csv",
        f"{folder.name}.csv",
        "quality.svg",
    }
    assert files == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prompts", "--layouts", "left,round"], "'round' is not one of left, upper, shapes"),
        (["prompts", "--seed", "-1"], "must be 0 or more"),
        (["prompts", "--split", "secret"], "invalid choice: 'secret'"),
        (["evaluate", "--model", "m", "--out", "o", "--vary", "luck"], "'luck' is not one of"),
        (["sheet"], "--out"),
        ([], "action"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == contract.ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_a_model_or_a_scheduler_that_cannot_be_used_is_named(
    model_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "sheet.png")]
    assert run("sheet", "--model", str(tmp_path / "nowhere"), *out) == 3
    assert "nowhere does not exist" in capsys.readouterr().err
    assert run("sheet", "--model", str(model_folder("sd")), "--scheduler", "fast_ema", *out) == 3
    assert "scheduler fast_ema cannot sample this model" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    budget = ["--vae-steps", "1", "--text-steps", "1", "--pictures", "8", "--steps", "1"]
    folders = ["--work", str(folder / "work"), "--out", str(folder / "mine")]
    assert run("train", "miniature", *folders, "--seed", "3", *budget) == 0
    return folder / "mine"


def test_a_trained_model_can_be_sampled(trained: Path, tmp_path: Path) -> None:
    sample = ["--count", "1", "--steps", "2", "--guidance-scale", "1"]
    sheet = tmp_path / "one.png"
    assert run("sheet", "--model", str(trained), "--out", str(sheet), *sample) == 0
    assert sheet.stat().st_size > 1000


def test_a_trained_model_is_distilled_to_one_that_takes_four_steps(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "turbo"
    folders = ["--teacher", str(trained), "--work", str(tmp_path / "work"), "--out", str(folder)]
    budget = ["--steps", "1", "--pictures", "8", "--guidance-scale", "1"]
    assert run("distil", "miniature", *folders, *budget) == 0
    assert f"{folder}: distilled from {trained}" in capsys.readouterr().out
    assert Model(folder).default.steps == 4


def test_the_shiny_model_begins_with_a_trained_one_and_computes_more(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "shiny")]
    budget = ["--vae-steps", "1", "--pictures", "8", "--steps", "1"]
    begun = ["train", "miniature-shiny", *folders, *budget, "--start"]
    assert run(*begun, str(tmp_path / "nowhere")) == contract.ExitCode.STARTUP_FAILED
    assert "nowhere does not exist" in capsys.readouterr().err
    assert run(*begun, str(trained)) == 0
    shiny, plain = (
        json.loads((folder / "unet/config.json").read_text())["down_block_types"]
        for folder in (tmp_path / "shiny", trained)
    )
    assert shiny.count("CrossAttnDownBlock2D") > plain.count("CrossAttnDownBlock2D")


@pytest.mark.parametrize("action", [["train"], ["distil", "--teacher", "teacher"]])
def test_a_recipe_that_there_is_not_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: list[str]
) -> None:
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert run(*action, "colossus", *folders) == contract.ExitCode.USAGE
    assert "no recipe 'colossus'; there are: miniature" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert run("distil", "miniature", "--teacher", str(tmp_path / "nowhere"), *folders) == 3
    assert "nowhere does not exist" in capsys.readouterr().err


def test_without_ocr_evaluate_says_what_to_install(
    model_folder: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    asked = ["--model", str(model_folder("sd")), "--out", str(tmp_path), "--count", "1"]
    assert run("evaluate", *asked) == 3
    assert "pip install 'modelrollout[inference,quality]'" in capsys.readouterr().err
