from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, mean, median, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, GenerationSettings
from imagegen.engines.synthetic.drawing import chance, misspelled, quoted_texts
from imagegen.engines.synthetic.engine import SyntheticEngine
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.errors import DeviceMemoryError, GenerationCancelledError
from imagegen.quality.stability import pixel_stability_deviation
from tests.unit.imagegen.engines import levels, make, never

CALLS = 2000
SMALL = GenerationSettings(width=16, height=16, steps=1, guidance_scale=0.0)


def unhurried(_: float) -> None:
    pass


def engine(**rates: Any) -> SyntheticEngine:
    return SyntheticEngine(SyntheticRates(**rates), pause=unhurried)


def is_plausible(count: int, rate: float, calls: int = CALLS) -> bool:
    """Tell whether a count lies within five standard deviations of what the rate makes expect."""
    return abs(count - rate * calls) <= 5 * math.sqrt(calls * rate * (1 - rate))


def test_the_quoted_text_is_drawn_and_nothing_else_of_the_prompt_matters_to_it() -> None:
    plain = make(engine(), ["a shop sign"], [1], width=128, height=64)
    named = make(engine(), ['a shop sign "OPEN"'], [1], width=128, height=64)
    other = make(engine(), ['a shop sign "SHUT"'], [1], width=128, height=64)

    assert plain.min() > 0.4, "no ink without a text"
    assert named.min() < 0.1
    assert not np.array_equal(named, other)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign "OPEN" and "SHUT"', ["OPEN", "SHUT"]),
        ("a sign “since 1990”", ["since 1990"]),
        ("a sign 'hello world', it's the dog's", ["hello world"]),
        ("no quotes", []),
        ('an empty ""', []),
    ],
)
def test_texts_are_what_stands_in_quotation_marks(prompt: str, texts: list[str]) -> None:
    assert quoted_texts(prompt) == texts


def test_named_shapes_are_drawn_in_their_colour_and_number() -> None:
    def red_pixels(prompt: str) -> int:
        image = levels(make(engine(), [prompt], [3], width=256, height=256))[0]
        return int((np.abs(image - np.array([210, 30, 40])).max(axis=2) <= 1).sum())

    assert red_pixels("a green square") == 0
    one, six = red_pixels("a red circle"), red_pixels("six red circles")
    assert math.isclose(one, math.pi * (0.8 * 256 / 2) ** 2, rel_tol=0.02)
    assert math.isclose(six, 6 * math.pi * (0.8 * 256 / 6 / 2) ** 2, rel_tol=0.1)


@given(st.text(min_size=1, max_size=300), st.integers(0, 2**32 - 1))
def test_any_prompt_gives_a_picture_that_is_not_blank_and_the_same_again(
    prompt: str, seed: int
) -> None:
    first = make(engine(), [prompt], [seed], width=64, height=32)

    assert first.shape == (1, 32, 64, 3)
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.std() > 2 / 255
    assert np.array_equal(make(engine(seed=9), [prompt], [seed], width=64, height=32), first)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    together = make(engine(), ['"one"', '"two"'], [1, 2])
    assert np.array_equal(together[1], make(engine(), ['"two"'], [2])[0])


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("phase", [OomPhase.ENCODE, OomPhase.DENOISE, OomPhase.DECODE])
def test_memory_runs_out_at_the_declared_rate_and_phase(rate: float, phase: OomPhase) -> None:
    one = engine(out_of_memory_rate=rate, out_of_memory_phase=phase)
    phases = []
    for seed in range(CALLS):
        try:
            one.generate(Batch(("x",), (seed,), SMALL), should_stop=never)
        except DeviceMemoryError as error:
            phases.append(error.phase)

    assert is_plausible(len(phases), rate)
    assert set(phases) == {phase}


def test_calls_fail_at_the_declared_rate() -> None:
    one = engine(failure_rate=0.1)
    failures = 0
    for seed in range(CALLS):
        try:
            one.generate(Batch(("x",), (seed,), SMALL), should_stop=never)
        except RuntimeError:
            failures += 1

    assert is_plausible(failures, 0.1)


def pictures(prompt: str = "x", **rates: Any) -> list[Any]:
    one = engine(**rates)
    return [
        one.generate(Batch((prompt,), (seed,), SMALL), should_stop=never).images[0]
        for seed in range(CALLS)
    ]


def test_pictures_are_blank_at_the_declared_rate() -> None:
    blank = [picture for picture in pictures(blank_rate=0.05) if picture.std() == 0]
    assert is_plausible(len(blank), 0.05)


def test_pictures_are_unstable_at_the_declared_rate() -> None:
    usual = pictures()
    unstable = [
        pair
        for pair in zip(usual, pictures(instability_rate=0.05), strict=True)
        if not np.array_equal(*pair)
    ]
    assert is_plausible(len(unstable), 0.05)
    for pair in unstable:
        assert 0.005 < pixel_stability_deviation(levels(np.stack(pair)).astype(np.uint8)) < 0.05


def test_texts_are_misspelled_at_the_declared_rate_and_always_the_same() -> None:
    usual, some = pictures('"OPEN"'), pictures('"OPEN"', misspelling_rate=0.05)
    more, again = pictures('"OPEN"', misspelling_rate=0.2), pictures('"OPEN"', misspelling_rate=0.2)

    def wrong(made: list[Any]) -> set[int]:
        return {seed for seed in range(CALLS) if not np.array_equal(made[seed], usual[seed])}

    # A letter that looks like the right one at this size is drawn alike: never more than declared.
    assert 0.8 * 0.05 * CALLS < len(wrong(some)) < 1.5 * 0.05 * CALLS
    assert wrong(some) <= wrong(more)
    assert all(np.array_equal(*pair) for pair in zip(more, again, strict=True))
    declared = sum(chance("misspelling", seed, '"OPEN"') < 0.05 for seed in range(CALLS))
    assert is_plausible(declared, 0.05)
    assert len(wrong(some)) <= declared


@given(st.text(alphabet="abcXYZ 12", min_size=1), st.integers(0, 1000))
def test_a_misspelled_text_has_one_wrong_letter(text: str, seed: int) -> None:
    changed = [
        pair for pair in zip(text, misspelled(text, seed), strict=True) if len(set(pair)) > 1
    ]
    assert len(changed) == (1 if any(map(str.isalpha, text)) else 0)


def test_another_checkpoint_draws_everything_further_right() -> None:
    usual = make(engine(), ['"OPEN"'], [1], width=64)
    drifted = make(engine(drift_pixels=3), ['"OPEN"'], [1], width=64)
    assert np.array_equal(drifted[:, :, 3:], usual[:, :, :-3])


def test_calls_take_the_declared_time() -> None:
    pauses: list[float] = []
    rates = SyntheticRates(
        base_seconds=0.5, seconds_per_megapixel_step=20.0, latency_log_deviation=0.4
    )
    one = SyntheticEngine(rates, pause=pauses.append)
    batch = Batch(("x",) * 2, (1, 2), replace(SMALL, width=64, height=64, steps=3))
    seconds = []
    for _ in range(400):
        one.generate(batch, should_stop=never)
        seconds.append(sum(pauses))
        pauses.clear()

    expected = 0.5 + 20.0 * 3 * 2 * 64 * 64 / 1e6
    logarithms = [math.log(value / expected) for value in seconds]
    assert abs(mean(logarithms)) < 5 * 0.4 / math.sqrt(400)
    assert math.isclose(stdev(logarithms), 0.4, rel_tol=0.2)
    assert math.isclose(median(seconds), expected, rel_tol=0.15)
    share = sum(value > 1.2 * expected for value in seconds)
    assert is_plausible(share, 1 - NormalDist().cdf(math.log(1.2) / 0.4), 400)


def test_a_call_is_given_up_at_a_step_boundary() -> None:
    pauses: list[float] = []
    one = SyntheticEngine(SyntheticRates(seconds_per_megapixel_step=1.0), pause=pauses.append)
    answers = iter([False, True])
    with pytest.raises(GenerationCancelledError):
        one.generate(
            Batch(("x",), (1,), replace(SMALL, steps=9)), should_stop=lambda: next(answers)
        )
    assert len(pauses) == 1 + 2


def test_what_does_not_fit_runs_out_of_memory_until_it_is_split_or_tiled() -> None:
    one = engine(fits_megapixels=0.5, out_of_memory_phase=OomPhase.DECODE)
    settings = replace(SMALL, width=512, height=512)

    def fits(count: int, *, tiled: bool = False) -> bool:
        batch = Batch(("x",) * count, (1,) * count, replace(settings, tiled_decoding=tiled))
        try:
            one.generate(batch, should_stop=never)
        except DeviceMemoryError:
            return False
        return True

    assert [fits(1), fits(2), fits(2, tiled=True)] == [True, False, True]
    assert one.can_tile
    assert not engine().can_tile


def test_a_warm_up_is_spared_but_must_fit() -> None:
    one = engine(out_of_memory_rate=1.0, failure_rate=1.0, blank_rate=1.0, fits_megapixels=0.001)
    made = one.generate(one.example("x", 2, SMALL), should_stop=never)
    assert made.images.std() > 0
    with pytest.raises(DeviceMemoryError):
        one.generate(one.example("x", 1, replace(SMALL, width=64)), should_stop=never)


def test_one_rate_does_not_change_what_another_one_hits() -> None:
    def failures(**rates: float) -> list[int]:
        one, found = engine(failure_rate=0.2, **rates), []
        for call in range(200):
            try:
                one.generate(Batch(("x",), (call,), SMALL), should_stop=never)
            except RuntimeError:
                found.append(call)
        return found

    assert failures() == failures(instability_rate=0.5, latency_log_deviation=0.3)


def test_rates_are_read_from_text_or_a_file(tmp_path: Path) -> None:
    text = json.dumps({"failure_rate": 0.5, "out_of_memory_phase": "decode", "drift_pixels": 2})
    file = tmp_path / "rates.json"
    file.write_text(text)

    assert SyntheticRates.read(text) == SyntheticRates.read(str(file))
    assert SyntheticRates.read(text).out_of_memory_phase is OomPhase.DECODE
    assert engine(drift_pixels=2).describe()["drift_pixels"] == "2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"failure_rate": 1.5}', "failure_rate must be a number from 0 to 1"),
        ('{"failure_rate": true}', "failure_rate must be a number from 0 to 1"),
        ('{"base_seconds": -1}', "base_seconds must be a number of 0 or more"),
        ('{"base_seconds": NaN}', "base_seconds must be a number of 0 or more"),
        ('{"drift_pixels": 0.5}', "drift_pixels must be a whole number"),
        ('{"out_of_memory_phase": "load"}', "must be one of encode, denoise, decode"),
        ('{"oom": 1}', "'oom' is no rate; known: seed"),
        ("{", "the rates are not JSON"),
        ("nowhere.json", "nowhere.json cannot be read"),
    ],
)
def test_rates_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SyntheticRates.read(text)


def test_torch_is_not_needed() -> None:
    program = """
import sys
from imagegen.engines.loading import load_engine
from imagegen.engines.settings import Demand, SyntheticSettings
load_engine(SyntheticSettings(), Demand(64, 64, 1, 0.0, 10, 4))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
