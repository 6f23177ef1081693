"""The contact sheet: what the models of the story served, side by side."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Row", "save_sheet"]

_ENLARGEMENT: Final = 2
_GAP: Final = 14
_LINE: Final = 17
_HEADING: Final = 2 * _LINE + 8
_CAPTION_CHARACTERS: Final = 42
_INK: Final = "#1f2933"
_FAINT: Final = "#52606d"
_FRAME: Final = "#cbd2d9"
_PAPER: Final = "#ffffff"


@dataclass(frozen=True)
class Row:
    """The pictures of one model at one setting.

    Attributes
    ----------
    title
        Model and setting.
    remark
        What became of it.
    pictures
        PNG files, one per prompt; None where none was served.
    """

    title: str
    remark: str
    pictures: tuple[bytes | None, ...]


def save_sheet(rows: Sequence[Row], prompts: Sequence[str], file: Path) -> None:
    """Write a PNG with a row per model and a column per prompt; its folder is created."""
    shown = [[_open(picture) for picture in row.pictures] for row in rows]
    sizes = [picture.size for pictures in shown for picture in pictures if picture is not None]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    captions = [textwrap.wrap(prompt, _CAPTION_CHARACTERS) for prompt in prompts]
    top = _GAP + _LINE * max(len(lines) for lines in captions)
    across, down = width + _GAP, _HEADING + height + _GAP
    sheet = Image.new("RGB", (_GAP + across * len(prompts), top + down * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, lines in enumerate(captions):
        _write(pen, (_GAP + column * across, _GAP), "\n".join(lines), _FAINT, 12)
    for row, pictures in enumerate(shown):
        y = top + row * down
        _write(pen, (_GAP, y + 4), rows[row].title, _INK, 15)
        _write(pen, (_GAP, y + 4 + _LINE + 2), rows[row].remark, _FAINT, 13)
        for column, picture in enumerate(pictures):
            corner = (_GAP + column * across, y + _HEADING)
            box = (corner[0] - 1, corner[1] - 1, corner[0] + width, corner[1] + height)
            pen.rectangle(box, outline=_FRAME)
            if picture is None:
                _write(pen, (corner[0] + _GAP, corner[1] + _GAP), "not served", _FAINT, 13)
            else:
                sheet.paste(picture, corner)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def _open(picture: bytes | None) -> Image.Image | None:
    if picture is None:
        return None
    with Image.open(io.BytesIO(picture)) as image:
        large = (image.width * _ENLARGEMENT, image.height * _ENLARGEMENT)
        return image.convert("RGB").resize(large, Image.Resampling.LANCZOS)


def _write(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str, size: int
) -> None:
    pen.multiline_text(corner, text, fill=colour, font=ImageFont.load_default(size), spacing=4)
