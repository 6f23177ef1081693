"""Scenes in words: a small fixed grammar with synonyms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from imagegen.miniature.scenes.scene import Scene
from imagegen.miniature.scenes.words import COLOURS, EMBLEMS

__all__ = ["prompt", "vocabulary"]

_ON: Final = ("on {ground} ground", "on a {ground} background", "on {ground}")
_TEXT: Final = (
    '"{word}" in {ink} letters',
    '"{word}" in {ink}',
    'the word "{word}" in {ink}',
    'a {ink} sign that says "{word}"',
)
_SHAPES: Final = ("{number} {colour} {shape}", "a drawing of {number} {colour} {shape}")
_SENTENCES: Final = {
    "left": ("{text} {on}",),
    "upper": (
        "{text} above {number} {colour} {shape} {on}",
        "{text} over {number} {colour} {shape} {on}",
        "{text} and {number} {colour} {shape} below {on}",
    ),
    "shapes": ("{shapes} {on}",),
    "centre": ("{text} in the middle {on}",),
    "lines": ("{text} {on}",),
    "logo": ("a {colour} {shape} logo and {text} {on}", "a {colour} {shape} beside {text} {on}"),
}
_BETWEEN_LINES: Final = '" over "'
_SINGULAR: Final = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "wedge"),
} | {emblem: (emblem,) for emblem in EMBLEMS}
_PLURAL: Final = {
    "circle": ("circles", "discs", "dots"),
    "square": ("squares", "boxes", "blocks"),
    "triangle": ("triangles", "wedges"),
}
_NUMBERS: Final = {1: ("one", "a"), 2: ("two",), 3: ("three",), 4: ("four",)}


def _pick(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


def prompt(scene: Scene, random: np.random.Generator) -> str:
    """Put a scene into words, with the words to be written in quotes; `random` picks synonyms.

    Neither the look nor, where the sentence does not need it, the layout is mentioned.
    """
    parts = {"ink": scene.ink, "ground": scene.ground, "colour": scene.colour}
    if scene.shape is not None:
        names = _SINGULAR if scene.count == 1 else _PLURAL
        parts["shape"] = _pick(random, names[scene.shape])
        parts["number"] = _pick(random, _NUMBERS[scene.count])
    parts["word"] = _BETWEEN_LINES.join(scene.words)
    text = _pick(random, _TEXT).format(**parts) if scene.words else ""
    shapes = _pick(random, _SHAPES).format(**parts) if scene.layout == "shapes" else ""
    on = _pick(random, _ON).format(**parts)
    sentence = _pick(random, _SENTENCES[scene.layout])
    return _with_articles(sentence.format(text=text, shapes=shapes, on=on, **parts))


def _with_articles(sentence: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def vocabulary() -> tuple[str, ...]:
    """List all words that prompts are made of, in alphabetical order, without the brands."""
    sentences = [*_ON, *_TEXT, *_SHAPES, *(form for forms in _SENTENCES.values() for form in forms)]
    fixed = re.sub(r"\{\w+\}", " ", " ".join([*sentences, _BETWEEN_LINES]))
    named = [*_SINGULAR.values(), *_PLURAL.values(), *_NUMBERS.values()]
    words = {*re.findall(r"[a-z]+", fixed), *COLOURS, *(name for names in named for name in names)}
    return tuple(sorted(words | {"an"}))
