"""From the bytes of an image file that somebody else made to a picture."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from imagegen.engines.base import Picture

__all__ = ["FORMATS", "read_base64", "read_picture"]

FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats that are read; all others are refused before their decoder sees them."""


def read_base64(text: str, *, max_pixels: int) -> Picture:
    """Read a picture from base64, as :func:`read_picture` does.

    Raises
    ------
    ValueError
        With what is wrong and what is allowed.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the picture is not base64") from error
    return read_picture(data, max_pixels=max_pixels)


def read_picture(data: bytes, *, max_pixels: int) -> Picture:
    """Read an image file; transparency is laid over white.

    Parameters
    ----------
    data
        The file.
    max_pixels
        Width times height at most; checked before anything is decoded, for a small file can hold a
        huge picture.

    Raises
    ------
    ValueError
        With what is wrong and what is allowed.
    """
    with warnings.catch_warnings(), _intact():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is narrower
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            image = None
    if image is None or image.width * image.height > max_pixels:
        size = "far too many" if image is None else f"{image.width}x{image.height}"
        raise ValueError(
            f"the picture has {size} pixels; width times height must not exceed {max_pixels}"
        )
    with image, _intact():
        ground = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return np.asarray(flat, dtype=np.float32) / np.float32(255)


@contextlib.contextmanager
def _intact() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a decoder may stumble over a broken file in any way
        raise ValueError(f"the picture is no intact {', '.join(FORMATS)} file") from error
