"""Counting shapes and naming colours, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imagegen.miniature.scenes import HEIGHT, WIDTH, Scene
from imagegen.miniature.scenes.words import COLOURS, SHAPES

__all__ = ["Seen", "observe"]

Samples = NDArray[np.float64]
"""Height x width x 3, 0 to 255."""

_LEAST_DISTANCE: Final = 60.0
"""Of a pixel's colour from the ground's; less may be texture."""

_LEAST_PIXELS: Final = 50
"""Of a shape; the smallest drawn triangle has four times as many."""

_SQUARE_FROM: Final = 0.89
_CIRCLE_FROM: Final = 0.65
"""Share of the box around it that a shape fills: square 1, circle 0.79, triangle 0.5."""

_TEXT: Final = {
    "upper": (slice(0, 38), slice(0, WIDTH)),
    "logo": (slice(0, HEIGHT), slice(36, WIDTH)),
}
_SHAPES: Final = {
    "upper": (slice(38, HEIGHT), slice(0, WIDTH)),
    "logo": (slice(0, HEIGHT), slice(0, 36)),
}
_ALL: Final = (slice(0, HEIGHT), slice(0, WIDTH))


@dataclass(frozen=True)
class Seen:
    """What is seen in a picture; None where there is nothing.

    `shapes` names the shape of every part that is large enough to be one, from the left.
    """

    ground: str
    ink: str | None
    colour: str | None
    shapes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Give the number of shapes."""
        return len(self.shapes)


def _nearest(colour: Samples) -> str:
    return min(COLOURS, key=lambda name: float(np.sum((colour - np.array(COLOURS[name])) ** 2)))


def _ground(picture: Samples) -> Samples:
    edge = np.concatenate(
        [
            picture[:2].reshape(-1, 3),
            picture[-2:].reshape(-1, 3),
            picture[:, :2].reshape(-1, 3),
            picture[:, -2:].reshape(-1, 3),
        ]
    )
    return np.asarray(np.median(edge, axis=0))


def _foreground(part: Samples, ground: Samples) -> tuple[Samples | None, NDArray[np.bool_]]:
    """Give the colour that stands out from the ground, and where it covers most of a pixel."""
    strong = np.linalg.norm(part - ground, axis=2) > _LEAST_DISTANCE
    if np.count_nonzero(strong) < _LEAST_PIXELS:
        return None, np.zeros(part.shape[:2], dtype=np.bool_)
    core = ndimage.binary_erosion(strong)  # edges are mixtures with the ground
    colour = np.asarray(np.median(part[core if core.any() else strong], axis=0))
    towards = colour - ground
    cover = (part - ground) @ towards / float(towards @ towards)
    return colour, cover > 0.5  # noqa: PLR2004 - one half


def _shapes(mask: NDArray[np.bool_]) -> tuple[str, ...]:
    labels, _ = ndimage.label(mask)
    found = []
    for at, box in enumerate(ndimage.find_objects(labels), 1):
        part = labels[box] == at
        if np.count_nonzero(part) >= _LEAST_PIXELS:
            found.append((box[1].start, _shape(float(part.mean()))))
    return tuple(shape for _, shape in sorted(found))


def _shape(filled: float) -> str:
    circle, square, triangle = SHAPES
    if filled >= _SQUARE_FROM:
        return square
    return circle if filled >= _CIRCLE_FROM else triangle


def observe(picture: NDArray[np.uint8], scene: Scene) -> Seen:
    """Look at a picture where the scene's layout has its letters and its shapes.

    Colours are named by the nearest one of the palette in RGB. Emblems are seen as whatever shape
    fills as much of its box.
    """
    samples = picture.astype(np.float64)
    ground = _ground(samples)
    ink = colour = None
    shapes: tuple[str, ...] = ()
    if scene.words:
        ink, _ = _foreground(samples[_TEXT.get(scene.layout, _ALL)], ground)
    if scene.shape is not None:
        colour, mask = _foreground(samples[_SHAPES.get(scene.layout, _ALL)], ground)
        shapes = _shapes(mask)
    return Seen(
        _nearest(ground),
        None if ink is None else _nearest(ink),
        None if colour is None else _nearest(colour),
        shapes,
    )
