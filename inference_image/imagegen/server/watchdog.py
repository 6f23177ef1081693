"""Checks of finished pictures that need no reference: a broken one is never delivered as a success.

A half-precision VAE, for instance, turns to NaN in silence and would hand out black pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_picture"]

_FLAT_DEVIATION = 2 / 255


def check_picture(picture: NDArray[np.float32]) -> str | None:
    """Name the check that a picture fails, one of ``contract.WATCHDOG_CHECKS``; None if it is fine.

    Parameters
    ----------
    picture
        Shape (height, width, 3), values in [0, 1].
    """
    if not np.isfinite(picture).all():
        return "non_finite"
    if float(picture.std()) < _FLAT_DEVIATION:
        return "flat"
    return None
