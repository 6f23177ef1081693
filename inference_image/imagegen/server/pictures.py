"""From finished pictures to what an answer carries."""

from __future__ import annotations

import base64

from imagegen.engines.base import Picture
from imagegen.server.png import encode_png
from imagegen.server.watchdog import Expected, check_picture, to_pixels

__all__ = ["inspect"]


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
    if failed:
        return failed, ""
    return None, base64.b64encode(encode_png(to_pixels(picture))).decode("ascii")
