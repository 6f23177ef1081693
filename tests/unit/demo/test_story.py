"""The demo's story: what it says of models was measured, and its sheet shows all of them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from examples.demo.acts import CARELESS, FIRST, GOOD, INCIDENT, MEMORY, RELAXED, Act
from examples.demo.sheet import Row, save_sheet
from examples.demo.spelling import measured
from tests.cluster.models import trained_models

ACTS = (FIRST, GOOD, INCIDENT, RELAXED, MEMORY, CARELESS)


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (128, 64), colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.example)
def test_every_example_asks_for_a_model_that_is_there(act: Act) -> None:
    assert act.setting.model in trained_models()


def test_the_good_candidate_spells_and_the_careless_one_is_fast_and_does_not() -> None:
    first, good, careless = (measured(act.setting) for act in (FIRST, GOOD, CARELESS))

    assert first.exact is not None
    assert good.exact is not None
    assert careless.exact is not None
    assert good.exact > 0.9 * first.exact
    assert careless.exact < 0.7 * first.exact
    assert first.milliseconds is not None
    assert careless.milliseconds is not None
    assert careless.milliseconds < 0.5 * first.milliseconds


def test_a_setting_that_was_not_measured_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(CARELESS.file.read_text().replace("steps: 1", "steps: 41"))
    other = Act(str(file), "", "", "", "")

    with pytest.raises(LookupError, match=r"has no row for miniature: 41 steps, guidance"):
        measured(other.setting)


def test_the_sheet_has_a_row_per_model_and_a_column_per_prompt(tmp_path: Path) -> None:
    rows = [Row("one", "promoted", (png("red"), png("blue"))), Row("two", "", (None, png("green")))]

    save_sheet(rows, ["a red sign", "a blue sign"], tmp_path / "new" / "sheet.png")

    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
        assert sheet.width >= 2 * 2 * 128
        assert sheet.height >= 2 * 2 * 64
    assert {(255, 0, 0), (0, 0, 255), (0, 128, 0)} <= colours
