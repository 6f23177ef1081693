"""The shiny look: gradients, sheen, texture, shadows and highlights."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imagegen.miniature.scenes.glyphs import Mask

__all__ = ["shine_ground", "shine_part"]

Canvas = NDArray[np.float32]

_SHADOW: Final = 0.35
_SHADOW_SHIFT: Final = 2
_SHADOW_BLUR: Final = 1.2
_GRADIENT: Final = 26.0
_SHEEN: Final = 14.0
_TEXTURE: Final = 2.5
_HIGHLIGHT: Final = 70.0
_SHADE: Final = 0.28


def shine_ground(canvas: Canvas, random: np.random.Generator) -> None:
    """Give a flat ground a gradient from above, a slanting sheen, and a fine texture."""
    height, width, _ = canvas.shape
    down = np.linspace(0.5, -0.5, height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    sheen = np.exp(-(((across - down * 0.5 - random.uniform(0.2, 0.8)) / 0.12) ** 2))
    texture = random.standard_normal((height, width)).astype(np.float32)
    canvas += (_GRADIENT * down + _SHEEN * sheen + _TEXTURE * texture)[..., None]


def shine_part(canvas: Canvas, mask: Mask, x: int, y: int, colour: NDArray[np.float32]) -> None:
    """Paint a mask with its upper left corner at (x, y), lit from the upper left, with a shadow."""
    height, width = canvas.shape[:2]
    cover = np.zeros((height, width), dtype=np.float32)
    cover[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    shadow = ndimage.shift(cover, _SHADOW_SHIFT, order=0)
    canvas *= 1 - _SHADOW * ndimage.gaussian_filter(shadow, _SHADOW_BLUR)[..., None]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    across, down = (columns - x) / mask.shape[1], (rows - y) / mask.shape[0]
    light = np.exp(-((across - 0.3) ** 2 + (down - 0.25) ** 2) / 0.08)
    lit = colour * (1 - _SHADE * np.clip(down, 0, 1)[..., None]) + _HIGHLIGHT * light[..., None]
    canvas += cover[..., None] * (lit - canvas)
