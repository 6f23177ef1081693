"""Checks of finished pictures that need no reference: a broken one is never delivered as a success.

A half-precision VAE, for instance, turns to NaN in silence and would hand out black pictures. What
the checks cannot see is a picture that is merely bad, such as one that was denoised halfway: the
decoder makes something smooth of any noise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from imagegen.contract import WATCHDOG_CHECKS
from imagegen.engines.base import Picture

__all__ = ["Expected", "check_picture", "to_pixels"]

Pixels = NDArray[np.uint8]

_MOST: Final = 255
_FLAT_DEVIATION: Final = 2 / _MOST

_CLIPPED_SHARE: Final = 0.6
_DRAWING_COLOURS: Final = 4
_DRAWING_SHARE: Final = 0.6
"""Line art and posters are clipped on purpose: mostly paper and ink, in a few colours."""

_TILE: Final = 128
_DISTANCES: Final = (1, 2, 3, 4)
_NOISE_CORRELATION: Final = 0.05
_SAMPLING_DEVIATIONS: Final = 4.0
"""Correlations of n independent pixels scatter by 1/sqrt(n) around 0. Pipelines with random weights
of all four architectures reach 0.32 or more; photographs and drawings more than 0.8."""


@dataclass(frozen=True)
class Expected:
    """What a picture has to be like.

    Parameters
    ----------
    width, height
        Its size in pixels.
    checks
        The checks to make, of ``contract.WATCHDOG_CHECKS``.
    """

    width: int
    height: int
    checks: Collection[str] = WATCHDOG_CHECKS


def to_pixels(picture: Picture) -> Pixels:
    """Round values in [0, 1] to 8 bits; what is no number becomes 0."""
    if not np.isfinite(picture).all():
        picture = np.nan_to_num(picture, nan=0.0, posinf=1.0, neginf=0.0)
    levels = picture * np.float32(_MOST)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, _MOST, out=levels).astype(np.uint8)


def check_picture(picture: Picture, expected: Expected) -> str | None:
    """Name the first check that a picture fails; None if it is fine.

    Parameters
    ----------
    picture
        Shape (height, width, 3), values in [0, 1].
    expected
        Its size, and the checks to make:

        ``wrong_size``
            The shape is another one. Always checked: nothing else makes sense without.
        ``non_finite``
            NaN or infinite values.
        ``flat``
            In no colour channel do values deviate by 2 of 255 levels: all is of one colour.
        ``clipped``
            More than 60 % of the values are 0 or 255, and the four most frequent colours cover less
            than 60 % of the pixels.
        ``noise_like``
            In the centre and in all corners, pixels are hardly more alike than independent ones, at
            distances of 1 to 4 pixels to the side and down.
    """
    if picture.shape != (expected.height, expected.width, 3):
        return "wrong_size"
    checks: dict[str, Callable[[Picture], bool]] = {
        "non_finite": lambda values: not np.isfinite(values).all(),
        "flat": lambda values: all(values[..., c].std() < _FLAT_DEVIATION for c in range(3)),
        "clipped": _is_clipped,
        "noise_like": _is_noise_like,
    }
    return next(
        (name for name, fails in checks.items() if name in expected.checks and fails(picture)),
        None,
    )


def _is_clipped(picture: Picture) -> bool:
    half = 0.5 / _MOST  # what rounds to an end of the range
    clipped = np.count_nonzero(picture < half) + np.count_nonzero(picture > 1 - half)
    if clipped <= _CLIPPED_SHARE * picture.size:
        return False
    pixels = to_pixels(picture)
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    counts = np.sort(np.unique(packed, return_counts=True)[1])
    return bool(counts[-_DRAWING_COLOURS:].sum() < _DRAWING_SHARE * packed.size)


def _is_noise_like(picture: Picture) -> bool:
    return all(_is_noise(tile.mean(axis=2)) for tile in _tiles(picture))


def _tiles(picture: Picture) -> Iterator[Picture]:
    """Give the centre and the corners; of a small picture one part."""
    rows, columns, _ = picture.shape
    if min(rows, columns) <= _TILE:
        yield picture[:_TILE, :_TILE]
        return
    centre = ((rows - _TILE) // 2, (columns - _TILE) // 2)
    corners = ((y, x) for y in (0, rows - _TILE) for x in (0, columns - _TILE))
    for top, left in (centre, *corners):
        yield picture[top : top + _TILE, left : left + _TILE]


def _is_noise(tile: NDArray[np.float32]) -> bool:
    centred = tile - tile.mean()
    variance = float((centred * centred).mean())
    if not variance > _FLAT_DEVIATION**2:
        return False
    scatter = _SAMPLING_DEVIATIONS / np.sqrt(tile.size)
    limit = max(_NOISE_CORRELATION, scatter) * variance
    pairs = (
        pair
        for distance in _DISTANCES
        for pair in (
            (centred[distance:], centred[:-distance]),
            (centred[:, distance:], centred[:, :-distance]),
        )
    )
    return all(abs(float((one * other).mean())) < limit for one, other in pairs)
