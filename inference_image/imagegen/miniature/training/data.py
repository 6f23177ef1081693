"""Scenes as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from imagegen.miniature.scenes import DEFAULT_FONTS, Look, Scene, draw, prompt, scenes

__all__ = ["Corpus", "make_corpus", "picture_batches", "to_tensor"]

_BLOCK = 1024


@dataclass(frozen=True)
class Corpus:
    """Scenes with what they look like.

    Attributes
    ----------
    scenes
        What the pictures show.
    pictures
        Samples of 8 bits: scene x height x width x channel.
    prompts
        Several wordings of each scene.
    """

    scenes: Sequence[Scene]
    pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    prompts: Sequence[Sequence[str]]


def make_corpus(
    *,
    seed: int,
    count: int,
    look: Look,
    layouts: Sequence[str],
    fonts: Sequence[str] = DEFAULT_FONTS,
    wordings: int = 6,
) -> Corpus:
    """Draw `count` scenes of the training split and word each of them in `wordings` ways."""
    random = np.random.default_rng((seed, count))
    chosen = list(scenes("train", seed=seed, count=count, look=look, layouts=layouts, fonts=fonts))
    return Corpus(
        chosen,
        np.stack([draw(scene, random) for scene in chosen]),
        [[prompt(scene, random) for _ in range(wordings)] for scene in chosen],
    )


def to_tensor(pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """Turn samples of 8 bits into a tensor of -1 to 1, channels first."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def picture_batches(
    *,
    seed: int,
    start: int,
    size: int,
    look: Look,
    layouts: Sequence[str],
    fonts: Sequence[str] = DEFAULT_FONTS,
) -> Iterator[torch.Tensor]:
    """Yield batches of freshly drawn pictures of the training split without end.

    The batch of a step is the same whether the steps before it were drawn or, by `start`, skipped.
    """
    per_block = max(_BLOCK // size, 1)
    block = start // per_block
    skipped = start % per_block
    while True:
        random = np.random.default_rng((seed, block))
        count = per_block * size
        drawn = [
            draw(scene, random)
            for scene in scenes(
                "train", seed=seed + block, count=count, look=look, layouts=layouts, fonts=fonts
            )
        ]
        for index in range(skipped, per_block):
            yield to_tensor(np.stack(drawn[index * size : (index + 1) * size]))
        block, skipped = block + 1, 0
