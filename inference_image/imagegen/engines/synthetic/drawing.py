"""Pictures of what a prompt says: its quoted text, and the coloured shapes that it names."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagegen.engines.base import Picture

__all__ = ["chance", "draw", "misspelled", "quoted_texts"]

Colour = tuple[int, int, int]

_COLOURS: Final[dict[str, Colour]] = {
    "black": (24, 24, 24),
    "blue": (30, 60, 200),
    "green": (20, 140, 60),
    "grey": (128, 128, 128),
    "orange": (240, 140, 30),
    "purple": (120, 40, 160),
    "red": (210, 30, 40),
    "white": (240, 240, 240),
    "yellow": (240, 210, 40),
}
_NUMBERS: Final = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_QUOTED: Final = re.compile(r'"([^"]+)"|“([^”]+)”|(?<![\w])\'([^\']+)\'(?![\w])')
_SHAPE: Final = re.compile(
    rf"\b(?:({'|'.join(_NUMBERS)})\s+)?({'|'.join(_COLOURS)})\s+(circle|square|triangle)s?\b",
    re.IGNORECASE,
)
_GROUND: Final = re.compile(
    rf"\bon (?:an? )?({'|'.join(_COLOURS)})(?: (?:back)?ground)?\b", re.IGNORECASE
)
_LARGEST_TEXT: Final = 0.9
_SMALLEST_FONT: Final = 8


def chance(purpose: str, seed: int, prompt: str) -> float:
    """Draw a number from 0 to 1 that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def quoted_texts(prompt: str) -> list[str]:
    """List what stands in quotation marks."""
    return [next(filter(None, match.groups())) for match in _QUOTED.finditer(prompt)]


def misspelled(text: str, seed: int) -> str:
    """Replace one letter by another one; a text without letters stays as it is."""
    places = [index for index, character in enumerate(text) if character.isalpha()]
    if not places:
        return text
    place = places[int(chance("place", seed, text) * len(places))]
    wrong = [letter for letter in string.ascii_letters if letter.lower() != text[place].lower()]
    letter = wrong[int(chance("letter", seed, text) * len(wrong))]
    return text[:place] + letter + text[place + 1 :]


@dataclass(frozen=True)
class _Shape:
    kind: str
    colour: Colour


def _shapes(prompt: str) -> list[_Shape]:
    plain = _QUOTED.sub(" ", prompt)
    return [
        _Shape(kind.lower(), _COLOURS[colour.lower()])
        for number, colour, kind in _SHAPE.findall(plain)
        for _ in range(_NUMBERS.get(number.lower(), 1))
    ]


def _ground(prompt: str, seed: int) -> Colour:
    named = _GROUND.search(_QUOTED.sub(" ", prompt))
    if named:
        return _COLOURS[named[1].lower()]
    red, green, blue = (150 + int(70 * chance(part, seed, prompt)) for part in "rgb")
    return red, green, blue


def draw(prompt: str, texts: list[str], *, seed: int, width: int, height: int) -> Picture:
    """Draw a picture; the same arguments always give the same one.

    Parameters
    ----------
    prompt
        Names the shapes and the ground. A ground that is not named has a colour of its own for
        every seed, and a soft slope, so that no picture is blank.
    texts
        What to write, one text below the other.
    seed
        Moves text and shapes a little, and colours the ground.
    width, height
        In pixels.
    """
    ground = _ground(prompt, seed)
    slope = np.linspace(-12, 12, width)[None, :, None] + np.linspace(-12, 12, height)[:, None, None]
    pixels = np.clip(np.asarray(ground) + slope, 8, 247).astype(np.uint8)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    shapes = _shapes(prompt)
    text_share = 1.0 if not shapes else 0.5
    for box, shape in zip(
        _boxes(len(shapes), width, height, below=text_share if texts else 0.0), shapes, strict=True
    ):
        _draw_shape(canvas, shape, box)
    ink = (16, 16, 16) if sum(ground) > 3 * 110 else (244, 244, 244)
    _write(canvas, texts, ink, (width, round(height * text_share)), seed)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _boxes(
    count: int, width: int, height: int, *, below: float
) -> Iterator[tuple[float, float, float, float]]:
    """Give the squares that shapes are drawn in, in a row."""
    top = height * below
    side = min(width / max(count, 1), height - top) * 0.8
    for index in range(count):
        middle = width * (index + 0.5) / count
        centre = (top + height) / 2
        yield middle - side / 2, centre - side / 2, middle + side / 2, centre + side / 2


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: _Shape, box: tuple[float, float, float, float]
) -> None:
    left, top, right, bottom = box
    if shape.kind == "circle":
        canvas.ellipse(box, fill=shape.colour)
    elif shape.kind == "square":
        canvas.rectangle(box, fill=shape.colour)
    else:
        peak = ((left + right) / 2, top)
        canvas.polygon([peak, (right, bottom), (left, bottom)], fill=shape.colour)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _wrap(canvas: ImageDraw.ImageDraw, text: str, size: int, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and canvas.textlength(longer, font=_font(size)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(
    canvas: ImageDraw.ImageDraw, texts: list[str], ink: Colour, room: tuple[int, int], seed: int
) -> None:
    """Write the texts as large as they fit."""
    width, height = (side * _LARGEST_TEXT for side in room)
    size = max(_SMALLEST_FONT, room[1] // 2)
    while True:
        lines = [line for text in texts for line in _wrap(canvas, text, size, width)]
        widest = max((canvas.textlength(line, font=_font(size)) for line in lines), default=0)
        if size <= _SMALLEST_FONT or (widest <= width and len(lines) * size * 1.25 <= height):
            break
        size = max(_SMALLEST_FONT, size * 9 // 10)
    free = room[0] - widest, room[1] - len(lines) * size * 1.25
    left = free[0] * (0.3 + 0.4 * chance("left", seed, ""))
    top = free[1] * (0.3 + 0.4 * chance("top", seed, ""))
    for index, line in enumerate(lines):
        canvas.text((left, top + index * size * 1.25), line, fill=ink, font=_font(size))
