"""Which scenes are trained on, and which are kept to measure by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from imagegen.miniature.scenes.scene import FONTS, LAYOUTS, Look, Scene
from imagegen.miniature.scenes.words import (
    BRANDS,
    EMBLEMS,
    GROUNDS,
    MAX_COUNT,
    SHAPES,
    inks,
)

__all__ = ["DEFAULT_FONTS", "DEFAULT_LAYOUTS", "Split", "is_held_out", "scenes"]

Split = Literal["train", "heldout"]

DEFAULT_LAYOUTS: Final = LAYOUTS[:3]
"""The layouts that are yielded when none are named."""

DEFAULT_FONTS: Final = tuple(FONTS)[:1]
"""The fonts, likewise."""

_HELD_OUT_PERCENT: Final = 15
_WITH_WORDS: Final = {"left": 1, "upper": 1, "shapes": 0, "centre": 1, "lines": 2, "logo": 1}
_WITH_SHAPES: Final = ("upper", "shapes")
_LONGEST: Final = {"lines": 7, "logo": 5}
_SPLITS: Final = ("train", "heldout")


def is_held_out(scene: Scene) -> bool:
    """Tell whether a scene's combination is never trained on.

    A combination is the words (without any: the shape and the count), the colour, the ground and
    the layout. The digest of its name decides, so that it is the same on every machine.
    """
    what = " ".join(scene.words) or f"{scene.count} {scene.shape}"
    key = f"{what}|{scene.colour}|{scene.ground}|{scene.layout}"
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < _HELD_OUT_PERCENT


def _pick(random: np.random.Generator, choices: Sequence[str]) -> str:
    if len(choices) == 1:
        return choices[0]
    return choices[int(random.integers(len(choices)))]


def _scene(random: np.random.Generator, layout: str, look: Look) -> Scene:
    ground = _pick(random, GROUNDS)
    colour = _pick(random, inks(ground))
    fitting = [word for word in BRANDS if len(word) <= _LONGEST.get(layout, len(word))]
    words = tuple(_pick(random, fitting) for _ in range(_WITH_WORDS[layout]))
    shape, count, ink = None, 0, colour
    if layout in _WITH_SHAPES:
        shape, count = _pick(random, SHAPES), int(random.integers(1, MAX_COUNT + 1))
    if layout == "logo":
        shape, count = _pick(random, EMBLEMS), 1
    if words and shape:
        ink = _pick(random, inks(ground))
    return Scene(words, shape, count, colour, ink, ground, layout, look)


def scenes(
    split: Split,
    *,
    seed: int,
    count: int,
    look: Look = "plain",
    layouts: Sequence[str] | None = None,
    fonts: Sequence[str] = DEFAULT_FONTS,
) -> Iterator[Scene]:
    """Yield random scenes; the same ones for the same arguments.

    Parameters
    ----------
    split
        ``train`` or ``heldout``: no combination (see :func:`is_held_out`) is in both.
    seed
        Of the choice, 0 or more.
    count
        How many scenes.
    look
        Look of all of them.
    layouts
        Some of :data:`LAYOUTS`, chosen with equal probability; default: the first three.
    fonts
        Some of :data:`FONTS`, likewise; default: the first.

    Raises
    ------
    ValueError
        For a layout or a font that there is not.
    """
    chosen = DEFAULT_LAYOUTS if layouts is None else tuple(layouts)
    for what, named, known in (("layouts", chosen, LAYOUTS), ("fonts", fonts, tuple(FONTS))):
        unknown = sorted(set(named) - set(known))
        if unknown or not named:
            told = ", ".join(unknown) or "none"
            raise ValueError(f"{what} must be some of {', '.join(known)}; not {told}")
    random = np.random.default_rng((seed, _SPLITS.index(split)))
    plain = _yield(random, count, chosen, split, look)
    return (replace(scene, font=_pick(random, fonts)) for scene in plain)


def _yield(
    random: np.random.Generator, count: int, layouts: Sequence[str], split: Split, look: Look
) -> Iterator[Scene]:
    for _ in range(count):
        layout = _pick(random, layouts)
        scene = _scene(random, layout, look)
        while is_held_out(scene) != (split == "heldout"):
            scene = _scene(random, layout, look)
        yield scene
