"""Capitals of one width, as strokes, and shapes, as outlines; drawn as masks of coverage."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["GLYPHS", "Mask", "letter_mask", "shape_mask"]

Mask = NDArray[np.float32]
"""Height x width; how much of each pixel is covered, 0 to 1."""

Point = tuple[float, float]
Stroke = tuple[Point, ...]

_SUPERSAMPLING: Final = 8
_ARC_POINTS: Final = 25


def _arc(centre: Point, radii: Point, start: int, end: int) -> Stroke:
    """Give points of an ellipse's arc; angles in degrees, clockwise from the right."""
    (x, y), (radius_x, radius_y) = centre, radii
    angles = np.radians(np.linspace(start, end, _ARC_POINTS))
    return tuple(
        (x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in angles
    )


_ROUND: Final = (
    *_arc((0.5, 0.3), (0.5, 0.3), -180, 0),
    *_arc((0.5, 0.7), (0.5, 0.3), 0, 180),
    (0.0, 0.3),
)
_BOWL: Final = ((0.0, 0.0), *_arc((0.55, 0.27), (0.45, 0.27), -90, 90), (0.0, 0.54))
_STEM: Final = ((0.0, 0.0), (0.0, 1.0))
_HOOK: Final = (*_arc((0.5, 0.3), (0.5, 0.3), -15, -180), *_arc((0.5, 0.7), (0.5, 0.3), 180, 15))

GLYPHS: Final[dict[str, tuple[Stroke, ...]]] = {
    "A": (((0, 1), (0.5, 0), (1, 1)), ((0.2, 0.66), (0.8, 0.66))),
    "B": (
        _STEM,
        ((0, 0), *_arc((0.55, 0.25), (0.38, 0.25), -90, 90), (0, 0.5)),
        ((0, 0.5), *_arc((0.55, 0.75), (0.45, 0.25), -90, 90), (0, 1)),
    ),
    "C": (_HOOK,),
    "D": (
        _STEM,
        (
            (0, 0),
            *_arc((0.4, 0.4), (0.6, 0.4), -90, 0),
            *_arc((0.4, 0.6), (0.6, 0.4), 0, 90),
            (0, 1),
        ),
    ),
    "E": (((1, 0), (0, 0), (0, 1), (1, 1)), ((0, 0.5), (0.8, 0.5))),
    "F": (((1, 0), (0, 0), (0, 1)), ((0, 0.5), (0.8, 0.5))),
    "G": (
        (
            *_arc((0.5, 0.3), (0.5, 0.3), -15, -180),
            *_arc((0.5, 0.7), (0.5, 0.3), 180, 0),
            (1, 0.55),
            (0.55, 0.55),
        ),
    ),
    "H": (_STEM, ((1, 0), (1, 1)), ((0, 0.5), (1, 0.5))),
    "I": (((0.5, 0), (0.5, 1)), ((0.1, 0), (0.9, 0)), ((0.1, 1), (0.9, 1))),
    "J": (((1, 0), *_arc((0.5, 0.7), (0.5, 0.3), 0, 165)),),
    "K": (_STEM, ((1, 0), (0, 0.58)), ((0.32, 0.4), (1, 1))),
    "L": (((0, 0), (0, 1), (1, 1)),),
    "M": (((0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)),),
    "N": (((0, 1), (0, 0), (1, 1), (1, 0)),),
    "O": (_ROUND,),
    "P": (_STEM, _BOWL),
    "Q": (_ROUND, ((0.55, 0.72), (1, 1.06))),
    "R": (_STEM, _BOWL, ((0.4, 0.54), (1, 1))),
    "S": ((*_arc((0.5, 0.25), (0.5, 0.25), -15, -270), *_arc((0.5, 0.75), (0.5, 0.25), -90, 165)),),
    "T": (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    "U": (((0, 0), *_arc((0.5, 0.7), (0.5, 0.3), 180, 0), (1, 0)),),
    "V": (((0, 0), (0.5, 1), (1, 0)),),
    "W": (((0, 0), (0.22, 1), (0.5, 0.4), (0.78, 1), (1, 0)),),
    "X": (((0, 0), (1, 1)), ((1, 0), (0, 1))),
    "Y": (((0, 0), (0.5, 0.52), (1, 0)), ((0.5, 0.52), (0.5, 1))),
    "Z": (((0, 0), (1, 0), (0, 1), (1, 1)),),
}
"""Strokes of each capital in a box from (0, 0), its upper left, to (1, 1)."""

_SUN: Final = tuple(
    (0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle))
    for angle, radius in (
        (math.pi * step / 8 - math.pi / 2, 0.5 if step % 2 == 0 else 0.3) for step in range(16)
    )
)
_WAVE: Final = tuple(
    (x, 0.5 + side * 0.2 - 0.28 * math.sin(2 * math.pi * x))
    for side, xs in ((-1, np.linspace(0, 1, 33)), (1, np.linspace(1, 0, 33)))
    for x in (float(value) for value in xs)
)
_OUTLINES: Final[dict[str, Stroke]] = {
    "circle": _arc((0.5, 0.5), (0.5, 0.5), 0, 360),
    "square": ((0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)),
    "triangle": ((0.5, 0.02), (1, 0.98), (0, 0.98)),
    "sun": _SUN,
    "wave": _WAVE,
    "peak": ((0, 0.95), (0.35, 0.1), (0.55, 0.5), (0.68, 0.3), (1, 0.95)),
}


def _shrunk(picture: Image.Image) -> Mask:
    small = picture.reduce(_SUPERSAMPLING)
    mask = np.asarray(small, dtype=np.float32) / np.float32(255)
    mask.setflags(write=False)  # it is shared by all who ask for it
    return mask


@cache
def letter_mask(letter: str, width: int, height: int, stroke: float) -> Mask:
    """Draw a capital that fills a box of `width` x `height` pixels with strokes of `stroke`."""
    scale = _SUPERSAMPLING
    picture = Image.new("L", (width * scale, height * scale))
    pen = ImageDraw.Draw(picture)
    radius = stroke * scale / 2
    reach_x, reach_y = width * scale - 2 * radius - 1, height * scale - 2 * radius - 1
    for strokes in GLYPHS[letter]:
        points = [(radius + x * reach_x, radius + y * reach_y) for x, y in strokes]
        pen.line(points, fill=255, width=round(2 * radius))
        for x, y in points:  # round ends and joints
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return _shrunk(picture)


@cache
def shape_mask(shape: str, size: int) -> Mask:
    """Draw a shape or emblem that fills a box of `size` x `size` pixels."""
    scale = size * _SUPERSAMPLING
    picture = Image.new("L", (scale, scale))
    outline = [(x * (scale - 1), y * (scale - 1)) for x, y in _OUTLINES[shape]]
    ImageDraw.Draw(picture).polygon(outline, fill=255)
    return _shrunk(picture)
