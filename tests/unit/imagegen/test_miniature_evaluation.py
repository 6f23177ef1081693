from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from imagegen.miniature.evaluation.cases import Case, as_record, make_cases
from imagegen.miniature.evaluation.evaluating import Plan, control_results, drawn, evaluate
from imagegen.miniature.evaluation.generating import Model, Setting
from imagegen.miniature.evaluation.grid import BASE, CONTROLS, VARIED, Trial, trials
from imagegen.miniature.evaluation.memory import peak_memory, resident_bytes
from imagegen.miniature.evaluation.pixels import observe
from imagegen.miniature.evaluation.plots import draw_plots
from imagegen.miniature.evaluation.reading import Reader, score_text, similarity
from imagegen.miniature.evaluation.report import all_results, markdown
from imagegen.miniature.evaluation.results import Result, keep, read_results, results_file
from imagegen.miniature.evaluation.scoring import score_pictures
from imagegen.miniature.evaluation.sheets import contact_sheet
from imagegen.miniature.scenes import LAYOUTS, Look, draw
from imagegen.miniature.scenes.words import BRANDS, SHAPES

WORDS = st.text("ABCDE", min_size=1, max_size=8)
LOOKS: tuple[Look, ...] = ("plain", "shiny")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@given(one=WORDS, other=WORDS)
def test_similarity_is_a_symmetric_share_and_1_for_equal_words_only(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) <= 1
    assert similarity(one, other) == similarity(other, one)
    assert (similarity(one, other) == 1) == (one == other)


def test_one_wrong_letter_of_six_is_five_sixths_alike_and_not_exact() -> None:
    score = score_text(["KORVAN"], ["K0RVAN"])
    assert score.exact == (False,)
    assert score.similarities[0] == pytest.approx(5 / 6)


@given(data=st.data(), wanted=st.lists(st.sampled_from(BRANDS), max_size=4))
def test_words_are_matched_whatever_their_order_and_the_rest_is_invented(
    data: st.DataObject, wanted: list[str]
) -> None:
    more = data.draw(st.lists(st.just("0000"), max_size=3))
    read = data.draw(st.permutations([*wanted, *more]))
    score = score_text(wanted, read)
    assert score.exact == (True,) * len(wanted)
    assert score.invented == len(more)


def test_a_word_that_was_not_read_is_not_alike_at_all() -> None:
    assert score_text(["LUMO"], []).similarities == (0,)
    assert score_text([], ["LUMO"]).invented == 1


def test_drawn_words_are_read_without_error(reader: Reader) -> None:
    layouts = ["left", "upper", "centre", "lines", "logo"]
    cases = make_cases("heldout", seed=3, count=30, layouts=layouts)
    scores = score_pictures(drawn(cases), cases, reader)
    assert scores.exact == 1
    assert scores.words >= 30


def test_blurred_words_are_not_read_as_well(reader: Reader) -> None:
    cases = make_cases("heldout", seed=4, count=8, layouts=["left"])
    blurred = [ndimage.gaussian_filter(picture, (5, 5, 0)) for picture in drawn(cases)]
    scores = score_pictures(blurred, cases, reader)
    assert scores.exact is not None
    assert scores.exact_low is not None
    assert scores.exact_high is not None
    assert 0 < scores.exact < 1
    assert scores.exact_low <= scores.exact <= scores.exact_high


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), look=st.sampled_from(LOOKS))
def test_what_was_drawn_is_seen(seed: int, look: Look) -> None:
    for case in make_cases("heldout", seed=seed, count=12, layouts=LAYOUTS, look=look):
        scene = case.scene
        seen = observe(draw(scene, np.random.default_rng(seed)), scene)
        assert seen.ground == scene.ground
        if scene.words:
            assert seen.ink == scene.ink
        if scene.shape is not None:
            assert seen.colour == scene.colour
        if scene.shape in SHAPES:
            assert seen.shapes == (scene.shape,) * scene.count


def test_an_empty_picture_shows_nothing_but_its_ground() -> None:
    (case,) = make_cases("heldout", seed=1, count=1, layouts=["upper"])
    seen = observe(np.full((64, 128, 3), 250, dtype=np.uint8), case.scene)
    assert (seen.ground, seen.ink, seen.colour, seen.count) == ("white", None, None, 0)


def test_a_picture_of_something_else_is_wrong_in_what_differs(reader: Reader) -> None:
    (case,) = make_cases("heldout", seed=1, count=1, layouts=["shapes"])
    wanted = replace(case.scene, shape="circle", count=3, colour="red", ground="white")

    def scores_of(**changes: object) -> tuple[float | None, float | None, float]:
        picture = draw(replace(wanted, **changes), np.random.default_rng(0))  # type: ignore[arg-type]
        scores = score_pictures([picture], [Case("", 0, wanted)], reader)
        return scores.count, scores.shapes, scores.colours

    assert scores_of() == (1, 1, 1)
    assert scores_of(count=2) == (0, 0, 1)
    assert scores_of(shape="square") == (1, 0, 1)
    assert scores_of(colour="blue") == (1, 1, 0)
    assert scores_of(ground="yellow") == (1, 1, 0)


def test_a_case_tells_what_must_be_seen() -> None:
    cases = make_cases("heldout", seed=7, count=40)
    assert cases == make_cases("heldout", seed=7, count=40)
    assert [case.seed for case in cases] == list(range(7, 47))
    for case in cases:
        record = as_record(case)
        assert set(record) == {"prompt", "words", "shape", "count", "colour", "ground"}
        assert (record["words"] is None) == (case.scene.layout == "shapes")
        assert (record["count"] is None) == (record["shape"] is None)


BASE_SETTING = Setting(20, 5.0, "DDIM")


def test_each_trial_differs_from_the_base_in_the_one_thing_that_is_varied() -> None:
    chosen = trials(BASE_SETTING, varied=VARIED, schedulers=("DDIM", "EulerDiscrete"))
    assert chosen[0] == Trial(BASE, BASE_SETTING)
    assert len({trial.setting for trial in chosen}) == len(chosen)
    for trial in chosen[1:]:
        pairs = zip(
            dataclasses.astuple(trial.setting), dataclasses.astuple(BASE_SETTING), strict=True
        )
        assert sum(one != other for one, other in pairs) == 1
    assert {trial.setting.steps for trial in chosen} >= {1, 50}
    assert {trial.setting.guidance_scale for trial in chosen} >= {1.0, 12.0}


def result(**changes: object) -> Result:
    plain = Result(
        "m", "sha256:0", BASE, 20, 5.0, "DDIM", "Float32", 1, 0, 24, 16, 16,
        0.75, 0.5, 0.9, 0.8, 0.0, 1.0, 1.0, 1.0, 0.0, None, 165.0, 300.0, 50.0, "reader",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


RATES = st.one_of(st.none(), st.integers(0, 10_000).map(lambda value: value / 10_000))


@given(exact=RATES, repeat_psd=RATES, steps=st.one_of(st.none(), st.integers(1, 50)))
def test_kept_results_are_read_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    exact: float | None,
    repeat_psd: float | None,
    steps: int | None,
) -> None:
    path = tmp_path_factory.mktemp("results") / "m.csv"
    results = [result(exact=exact, repeat_psd=repeat_psd, steps=steps), result()]
    keep(path, results)
    assert read_results(path) == results


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("model,exact\nm,1\n")
    with pytest.raises(ValueError, match="has other columns than results have; remove it"):
        read_results(tmp_path / "m.csv")


def test_tables_and_plots_show_all_models_and_are_the_same_each_time(tmp_path: Path) -> None:
    keep(
        results_file(tmp_path, "m"),
        [result(), result(varied="steps", steps=1, exact=0.0, exact_low=0.0)],
    )
    other = result(model="n", varied="batch", batch_size=8, batch_psd=0.0012)
    keep(results_file(tmp_path, "n"), [result(model="n"), other])
    results = all_results(tmp_path)
    table = markdown(results)
    assert "## m\n" in table
    assert "## n\n" in table
    assert "| 1 steps, guidance 5, DDIM, Float32, batch 1 | 24 | 0.000 (0.00 to 0.90) |" in table
    assert "| 0.0012 |" in table
    written = draw_plots(results, tmp_path)
    first = [path.read_bytes() for path in written]
    assert first == [path.read_bytes() for path in draw_plots(results, tmp_path)]
    assert all(b">m<" in plot and b">n<" in plot for plot in first)


def test_a_sheet_shows_every_picture_enlarged_with_its_caption() -> None:
    pictures: list[NDArray[np.uint8]] = [
        np.full((64, 128, 3), 40 * at, dtype=np.uint8) for at in range(5)
    ]
    sheet = np.asarray(contact_sheet(pictures, ["a caption"] * 5, columns=2))
    for at in range(5):
        y, x = at // 2 * (128 + 44) + 10, at % 2 * (256 + 10) + 10
        assert np.all(sheet[y : y + 128, x : x + 256] == 40 * at)
        assert sheet[y + 130 : y + 160, x : x + 256].min() < 100


def test_peak_memory_is_that_of_the_block_alone() -> None:
    size = 64_000_000
    earlier = np.ones(3 * size, dtype=np.uint8)
    del earlier
    before = resident_bytes()
    assert before is not None
    with peak_memory("cpu") as peak:
        now = np.ones(size, dtype=np.uint8)
        del now
    assert peak.bytes is not None
    assert 0.9 * size < peak.bytes - before < 1.5 * size


class TestOfARealModel:
    @pytest.fixture
    def plan(self) -> Plan:
        return Plan(make_cases("heldout", seed=1, count=3), few=1, seed=1)

    @pytest.fixture
    def tried(self) -> list[Trial]:
        base = Setting(1, 1.0, "DDIM")
        return [
            Trial(BASE, base),
            Trial("batch", replace(base, batch_size=2)),
            Trial("precision", replace(base, precision="BFloat16")),
        ]

    def test_every_trial_is_measured_once_and_kept(
        self,
        model_folder: Callable[[str], Path],
        tmp_path: Path,
        reader: Reader,
        plan: Plan,
        tried: list[Trial],
    ) -> None:
        model, said = Model(model_folder("sd")), list[str]()

        def measured() -> list[Result]:
            return evaluate(
                model, trials=tried, plan=plan, folder=tmp_path, reader=reader, say=said.append
            )

        controls, base, batch, precision = first = measured()
        assert len(said) == 3
        assert controls.varied == CONTROLS
        assert (base.pictures, batch.pictures, precision.pictures) == (3, 2, 1)
        assert [each.repeat_psd for each in first[1:]] == [0, 0, 0]
        assert base.batch_psd is None
        assert batch.batch_psd is not None
        assert batch.batch_psd < 0.002
        assert all(each.milliseconds and each.peak_mb for each in first[1:])

        again = measured()
        assert len(said) == 3
        assert [each.key for each in again] == [each.key for each in first]
        assert read_results(results_file(tmp_path, model.name)) == again

    def test_pictures_depend_on_their_seed_and_not_on_their_place(
        self, model_folder: Callable[[str], Path], plan: Plan
    ) -> None:
        model, setting = Model(model_folder("sd")), Setting(2, 1.0, "DDIM")
        one, two, three = model.make(plan.cases, setting).pictures
        assert not np.array_equal(one, two)
        backwards = model.make(plan.cases[::-1], setting).pictures
        assert all(map(np.array_equal, backwards, (three, two, one)))

    def test_pictures_come_back_from_the_autoencoder_in_their_size(
        self, model_folder: Callable[[str], Path], plan: Plan
    ) -> None:
        shown = Model(model_folder("sd")).reconstruct(drawn(plan.cases))
        assert [picture.shape for picture in shown] == [(64, 128, 3)] * 3

    def test_drawn_controls_are_kept_beside_the_models(
        self, tmp_path: Path, reader: Reader, plan: Plan
    ) -> None:
        kept = control_results(tmp_path, plan, reader)
        assert (kept.exact, kept.count, kept.shapes, kept.colours) == (1, 1, 1, 1)
        assert all_results(tmp_path) == {"drawn controls": read_results(tmp_path / "drawn.csv")}
