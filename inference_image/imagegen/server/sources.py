"""Pictures that requests bring along."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from PIL import Image

from imagegen.engines.base import Picture
from imagegen.server.fields import refuse

__all__ = ["read_source"]


def read_source(encoded: str, *, max_pixels: int) -> Picture:
    """Decode a PNG in base64.

    Parameters
    ----------
    encoded
        The file.
    max_pixels
        Largest area; nothing larger is decoded.

    Raises
    ------
    RequestRefusedError
        Status 400, if it is no such file.
    """
    try:
        content = base64.b64decode(encoded, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > max_pixels:
                refuse("image", f"image must not have more than {max_pixels} pixels")
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        refuse("image", "image must be a PNG file in base64")
    return pixels / np.float32(255)
