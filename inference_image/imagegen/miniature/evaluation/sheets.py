"""Contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["contact_sheet"]

_ENLARGEMENT: Final = 2
_GAP: Final = 10
_CAPTION: Final = 34
_TEXT: Final = 11
_CAPTION_WIDTH: Final = 46
_INK: Final = "#1f2933"
_PAPER: Final = "#ffffff"


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int
) -> Image.Image:
    """Put pictures of one size side by side, enlarged, each with a caption of up to two lines."""
    height, width = pictures[0].shape[:2]
    wide, high = width * _ENLARGEMENT, height * _ENLARGEMENT
    rows = -(-len(pictures) // columns)
    step_x, step_y = wide + _GAP, high + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for at, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + at % columns * step_x, _GAP + at // columns * step_y
        large = Image.fromarray(picture).resize((wide, high), Image.Resampling.LANCZOS)
        sheet.paste(large, (x, y))
        pen.rectangle((x - 1, y - 1, x + wide, y + high), outline="#cbd2d9")
        lines = textwrap.wrap(caption, _CAPTION_WIDTH)[:2]
        pen.multiline_text((x, y + high + 3), "\n".join(lines), fill=_INK, font=font, spacing=3)
    return sheet
