"""Prompts to be measured by, with what their pictures must show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagegen.miniature.scenes import DEFAULT_FONTS, Look, Scene, Split, prompt, scenes

__all__ = ["Case", "as_record", "make_cases"]


@dataclass(frozen=True)
class Case:
    """A prompt, the seed of its picture, and what must be seen."""

    prompt: str
    seed: int
    scene: Scene


def make_cases(
    split: Split,
    *,
    seed: int,
    count: int,
    layouts: Sequence[str] | None = None,
    fonts: Sequence[str] = DEFAULT_FONTS,
    look: Look = "plain",
) -> list[Case]:
    """Choose scenes and put them into words; the same ones for the same arguments.

    The seed of the picture is `seed` plus the case's place, from 0.
    """
    random = np.random.default_rng((seed, 1))
    chosen = scenes(split, seed=seed, count=count, layouts=layouts, fonts=fonts, look=look)
    return [Case(prompt(scene, random), seed + at, scene) for at, scene in enumerate(chosen)]


def as_record(case: Case) -> dict[str, Any]:
    """Give what a picture of the prompt must show, to be printed as JSON.

    ``colour`` is that of the shapes or, without any, of the letters.
    """
    scene = case.scene
    return {
        "prompt": case.prompt,
        "words": list(scene.words) or None,
        "shape": scene.shape,
        "count": scene.count or None,
        "colour": scene.colour,
        "ground": scene.ground,
    }
