"""Sheets of samples: what a model draws by now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from imagegen.miniature.scenes import HEIGHT, WIDTH, Look, prompt, scenes

__all__ = ["draw_sheet", "sample", "unseen_prompts"]


def unseen_prompts(count: int, *, look: Look, layouts: Sequence[str]) -> list[str]:
    """Word scenes that are never trained on; the same ones each time."""
    random = np.random.default_rng(0)
    chosen = scenes("heldout", seed=0, count=count, look=look, layouts=layouts)
    return [prompt(scene, random) for scene in chosen]


def sample(
    pipeline: Any, prompts: Sequence[str], *, steps: int, guidance: float, batch: int = 8
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Draw a picture for each prompt; the seed of a picture is its number."""
    drawn = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        generators = [torch.Generator().manual_seed(start + index) for index in range(len(part))]
        images = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=HEIGHT,
            width=WIDTH,
            generator=generators,
        ).images
        drawn += [np.asarray(image) for image in images]
    return drawn


def draw_sheet(
    pipeline: Any,
    prompts: Sequence[str],
    out: Path,
    *,
    steps: int,
    guidance: float,
    columns: int = 4,
) -> None:
    """Draw the prompts and save them side by side as a PNG."""
    drawn = sample(pipeline, prompts, steps=steps, guidance=guidance)
    rows = [
        np.concatenate(drawn[start : start + columns], axis=1)
        for start in range(0, len(drawn) - columns + 1, columns)
    ]
    Image.fromarray(np.concatenate(rows)).save(out)
