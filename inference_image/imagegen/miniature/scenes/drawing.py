"""Scenes as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from imagegen.miniature.scenes.glyphs import GLYPHS, Mask, letter_mask, shape_mask
from imagegen.miniature.scenes.scene import FONTS, HEIGHT, WIDTH, Scene
from imagegen.miniature.scenes.shine import shine_ground, shine_part
from imagegen.miniature.scenes.words import COLOURS

__all__ = ["MARGIN", "draw"]

MARGIN: Final = 8
"""Pixels to the left of a word that begins at the left."""

_SWAY: Final = 8
"""Pixels between the two heights at which things may stand. Where noise has to choose between few
places that lie far apart, small models place all letters of a word alike; with many places close
together the letters of a word part company."""

_SLIDE: Final = 4
_SLIDES: Final = 3
_SMALL, _LARGE = 20, 24
_SHAPE_PITCH: Final = 28
_BESIDE: Final = 32
_CARELESSNESS: Final = 0.2
_WOBBLE: Final = 3


@dataclass(frozen=True)
class _Part:
    """A mask, its upper left corner in pixels, and its colour's name."""

    mask: Mask
    x: int
    y: int
    colour: str


def _height(upper: int, random: np.random.Generator) -> int:
    """Choose one of the two heights of which `upper` is the upper one."""
    return upper + _SWAY * int(random.integers(2))


def _careless(word: str, random: np.random.Generator) -> str:
    letters = list(GLYPHS)
    return "".join(
        letters[int(random.integers(len(letters)))] if random.random() < _CARELESSNESS else letter
        for letter in word
    )


def _word(
    word: str, left: int, top: int, scene: Scene, random: np.random.Generator
) -> Iterator[_Part]:
    shiny, font = scene.look == "shiny", FONTS[scene.font]
    for index, letter in enumerate(_careless(word, random) if shiny else word):
        wobble = int(random.integers(-_WOBBLE, _WOBBLE + 1)) if shiny else 0
        mask = letter_mask(letter, font.width, font.height, font.stroke)
        yield _Part(mask, left + index * font.pitch, top + wobble, scene.ink)


def _row(scene: Scene, size: int, top: int, random: np.random.Generator) -> Iterator[_Part]:
    """Put the shapes side by side, beginning at one of few places on the left."""
    if scene.shape is None:
        return
    room = WIDTH - 2 * MARGIN - (scene.count - 1) * _SHAPE_PITCH - size
    left = MARGIN + _SLIDE * int(random.integers(min(_SLIDES, room // _SLIDE + 1)))
    mask = shape_mask(scene.shape, size)
    for index in range(scene.count):
        yield _Part(mask, left + index * _SHAPE_PITCH, top, scene.colour)


def _parts(scene: Scene, random: np.random.Generator) -> Iterator[_Part]:
    middle = (HEIGHT - _LARGE - _SWAY) // 2
    if scene.layout == "left":
        yield from _word(scene.words[0], MARGIN, _height(middle, random), scene, random)
    elif scene.layout == "upper":
        yield from _word(scene.words[0], MARGIN, _height(4, random), scene, random)
        yield from _row(scene, _SMALL, 40, random)
    elif scene.layout == "shapes":
        yield from _row(scene, _LARGE, _height(middle, random), random)
    elif scene.layout == "centre":
        left = (WIDTH - FONTS[scene.font].pitch * len(scene.words[0])) // 2
        yield from _word(scene.words[0], left, _height(middle, random), scene, random)
    elif scene.layout == "lines":
        for word, top in zip(scene.words, (4, 36), strict=True):
            yield from _word(word, MARGIN, top, scene, random)
    else:
        top = _height(middle, random)
        yield _Part(shape_mask(str(scene.shape), _LARGE), MARGIN, top, scene.colour)
        yield from _word(scene.words[0], MARGIN + _BESIDE, top, scene, random)


def draw(scene: Scene, random: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a scene.

    Parameters
    ----------
    scene
        What to draw.
    random
        Moves things a little within the layout, and makes the carelessness of the shiny look.

    Returns
    -------
    numpy.ndarray
        ``HEIGHT`` x ``WIDTH`` x 3 samples, 8-bit sRGB.
    """
    shiny = scene.look == "shiny"
    ground = np.asarray(COLOURS[scene.ground], dtype=np.float32)
    canvas = np.broadcast_to(ground, (HEIGHT, WIDTH, 3)).copy()
    if shiny:
        shine_ground(canvas, random)
    for part in _parts(scene, random):
        colour = np.asarray(COLOURS[part.colour], dtype=np.float32)
        if shiny:
            shine_part(canvas, part.mask, part.x, part.y, colour)
            continue
        height, width = part.mask.shape
        under = canvas[part.y : part.y + height, part.x : part.x + width]
        under += part.mask[..., None] * (colour - under)
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)
