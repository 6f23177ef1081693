from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen.miniature.scenes import (
    FONTS,
    HEIGHT,
    LAYOUTS,
    MAX_TOKENS,
    WIDTH,
    Look,
    Scene,
    Split,
    draw,
    is_held_out,
    prompt,
    scenes,
    tokenizer,
    vocabulary,
)
from imagegen.miniature.scenes.words import BRANDS, COLOURS, GROUNDS, SHAPES, inks

SEEDS = st.integers(0, 2**32 - 1)
SPLITS: tuple[Split, ...] = ("train", "heldout")
LOOKS: tuple[Look, ...] = ("plain", "shiny")


def some(seed: int, split: Split = "heldout", look: Look = "plain") -> Iterator[Scene]:
    return scenes(split, seed=seed, count=12, look=look, layouts=LAYOUTS)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def test_one_wrong_letter_never_makes_another_brand() -> None:
    assert len(set(BRANDS)) == 36
    assert all(re.fullmatch("[A-Z]{4,7}", word) for word in BRANDS)
    assert min(distance(one, other) for one, other in combinations(BRANDS, 2)) >= 2


def test_every_ground_has_inks_that_can_be_told_from_it() -> None:
    assert set(COLOURS) == {ink for ground in GROUNDS for ink in inks(ground)}
    for ground in GROUNDS:
        assert len(inks(ground)) >= 3
        assert ground not in inks(ground)


@settings(max_examples=25)
@given(seed=SEEDS, split=st.sampled_from(SPLITS))
def test_scenes_are_the_same_for_the_same_seed_and_belong_to_their_split(
    seed: int, split: Split
) -> None:
    first = list(some(seed, split))
    assert first == list(some(seed, split))
    assert all(is_held_out(scene) == (split == "heldout") for scene in first)


def test_no_combination_of_one_split_is_in_the_other() -> None:
    def combinations_of(split: Split) -> set[tuple[object, ...]]:
        yielded = scenes(split, seed=1, count=5000)
        return {(s.words or (s.shape, s.count), s.colour, s.ground, s.layout) for s in yielded}

    trained, held_out = combinations_of("train"), combinations_of("heldout")
    assert len(trained) > 1000
    assert len(held_out) > 200
    assert not trained & held_out


def test_another_seed_is_another_choice() -> None:
    assert list(some(1)) != list(some(2))


@settings(max_examples=25)
@given(seed=SEEDS, look=st.sampled_from(LOOKS))
def test_a_picture_shows_its_colours_and_is_the_same_for_the_same_seed(
    seed: int, look: Look
) -> None:
    for scene in some(seed, look=look):
        picture = draw(scene, random(seed))
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, draw(scene, random(seed)))
        if look == "plain":
            seen = {tuple(int(v) for v in colour) for colour in picture.reshape(-1, 3)}
            assert {COLOURS[scene.colour], COLOURS[scene.ink], COLOURS[scene.ground]} <= seen


@settings(max_examples=25)
@given(seed=SEEDS)
def test_another_font_is_the_same_scene_drawn_in_another_way(seed: int) -> None:
    for font, other in (("light", "bold"), ("small", "bold"), ("small", "light")):
        chosen, others = (
            list(scenes("train", seed=seed, count=6, layouts=("left", "lines"), fonts=(name,)))
            for name in (font, other)
        )
        assert [replace(scene, font=other) for scene in chosen] == others
        for one, two in zip(chosen, others, strict=True):
            assert not np.array_equal(draw(one, random(seed)), draw(two, random(seed)))


def test_letters_and_what_is_next_to_them_begin_at_whole_latents() -> None:
    assert not [name for name, font in FONTS.items() if font.pitch % 4 or font.width > font.pitch]


def test_a_font_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="fonts must be some of bold, light, small; not comic"):
        scenes("train", seed=0, count=1, fonts=("comic",))


@settings(max_examples=25)
@given(seed=SEEDS)
def test_the_shiny_look_is_the_same_scene_drawn_in_another_way(seed: int) -> None:
    for plain, shiny in zip(some(seed), some(seed, look="shiny"), strict=True):
        assert prompt(plain, random(seed)) == prompt(shiny, random(seed))
        assert not np.array_equal(draw(plain, random(seed)), draw(shiny, random(seed)))


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_prompt_names_all_that_is_to_be_seen(seed: int) -> None:
    for scene in some(seed):
        words = prompt(scene, random(seed))
        for word in scene.words:
            assert f'"{word}"' in words
        assert {scene.colour, scene.ink, scene.ground} <= set(re.findall("[a-z]+", words))
        assert set(re.findall(r"\b[a-z]+\b", words)) <= set(vocabulary())
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", words)


def test_a_layout_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="not diagonal"):
        scenes("train", seed=0, count=1, layouts=["left", "diagonal"])
    with pytest.raises(ValueError, match="not none"):
        scenes("train", seed=0, count=1, layouts=[])


def test_every_shape_and_count_comes_up() -> None:
    seen = {(s.shape, s.count) for s in scenes("train", seed=3, count=2000, layouts=["shapes"])}
    assert seen == {(shape, count) for shape in SHAPES for count in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> transformers.CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(folder)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def test_the_saved_tokenizer_has_a_token_per_word_and_per_letter(
    saved: transformers.CLIPTokenizer,
) -> None:
    tokens = saved.tokenize('a red sign that says "LUMO" on white ground')
    assert tokens == [
        *("a", "red", "sign", "that", "says", '"</w>', "l", "u", "m", "o</w>", '"</w>'),
        *("on", "white", "ground"),
    ]


@settings(max_examples=25)
@given(seed=SEEDS)
def test_every_prompt_fits_and_has_no_unknown_token(
    saved: transformers.CLIPTokenizer, seed: int
) -> None:
    built = tokenizer()
    for scene in some(seed):
        words = prompt(scene, random(seed))
        tokens = saved(words).input_ids
        assert len(tokens) <= MAX_TOKENS
        assert saved.unk_token_id not in tokens
        assert tokens == built(words).input_ids


@given(text=st.text(max_size=200))
def test_no_text_is_too_strange_for_the_tokenizer(
    saved: transformers.CLIPTokenizer, text: str
) -> None:
    tokens = saved(text, truncation=True).input_ids
    assert 2 <= len(tokens) <= MAX_TOKENS
    assert max(tokens) < len(saved)


def test_signs_that_the_grammar_does_not_use_are_unknown(
    saved: transformers.CLIPTokenizer,
) -> None:
    assert saved.tokenize("7") == [saved.unk_token]
