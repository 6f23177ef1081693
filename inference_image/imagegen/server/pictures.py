"""From finished pictures to what an answer carries."""

from __future__ import annotations

import base64
import io

from PIL import Image

from imagegen.engines.base import Picture
from imagegen.server.watchdog import Expected, check_picture, to_pixels

__all__ = ["encode", "inspect"]

_FASTEST = 1
"""Level of compression: higher ones take many times as long for a tenth of the size."""


def encode(picture: Picture) -> str:
    """Encode a picture as PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(buffer, format="PNG", compress_level=_FASTEST)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")


def inspect(picture: Picture, expected: Expected) -> tuple[str | None, str]:
    """Check a picture, and encode it if it is fine.

    Returns
    -------
    check
        Name of the check that it fails, None if it is fine.
    encoded
        The picture as PNG in base64; empty when it is not fine.
    """
    failed = check_picture(picture, expected)
    return failed, "" if failed else encode(picture)
