"""Pixel stability deviation (PSD): how much pictures that should be alike differ.

For images ``x_1 .. x_n`` of the same size, decoded to 8 bits and scaled to [0, 1], with ``M``
samples (height x width x 3) each::

    s_m^2 = 1/(n-1) * sum_i (x_i,m - mean_m)^2
    PSD   = sqrt( 1/M * sum_m s_m^2 )

It is 0 exactly if all images are identical and does not depend on their order; ``sqrt(2) * PSD``
is the root mean square difference of two random members.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixel_stability_deviation"]

_LEVELS = 255


def pixel_stability_deviation(images: Iterable[NDArray[np.uint8]]) -> float:
    """Compute the PSD of pictures; the sums are integers, so the result is exact to rounding.

    Parameters
    ----------
    images
        At least two arrays of 8-bit samples, all of the same shape.

    Returns
    -------
    float
        0 for identical pictures, at most ``0.5 * sqrt(n / (n - 1))``.

    Raises
    ------
    ValueError
        If there are fewer than two pictures, or they differ in shape, or are not 8-bit.
    """
    count = 0
    total: NDArray[np.int64] | None = None
    squares: NDArray[np.int64] | None = None
    for image in images:
        if image.dtype != np.uint8:
            raise ValueError(f"pictures must hold 8-bit samples, not {image.dtype}")
        samples = image.astype(np.int64)
        if total is None or squares is None:
            total, squares = samples, samples * samples
        elif samples.shape != total.shape:
            raise ValueError(
                f"pictures must have the same shape, not {total.shape} and {samples.shape}"
            )
        else:
            total += samples
            squares += samples * samples
        count += 1
    if count < 2 or total is None or squares is None:  # noqa: PLR2004 - a variance needs two
        raise ValueError(f"at least two pictures are needed, not {count}")
    # n * sum(x^2) - sum(x)^2 is n (n-1) times the sample variance, in whole numbers.
    deviations = int((count * squares - total * total).sum())
    variance = deviations / (count * (count - 1) * total.size)
    return math.sqrt(variance) / _LEVELS
