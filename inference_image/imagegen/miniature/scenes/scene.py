"""What is to be seen in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FONTS", "HEIGHT", "LAYOUTS", "WIDTH", "Font", "Look", "Scene"]

WIDTH: Final = 128
HEIGHT: Final = 64

Look = Literal["plain", "shiny"]

LAYOUTS: Final = ("left", "upper", "shapes", "centre", "lines", "logo")
"""Arrangements, in the order in which they are learned: a word from the left; a word above shapes;
shapes alone; a word in the middle; two words, one below the other; an emblem and a word."""


@dataclass(frozen=True)
class Font:
    """How letters are drawn; lengths in pixels.

    Attributes
    ----------
    width, height
        Of a capital.
    stroke
        Width of the pen.
    pitch
        From letter to letter. Like all places it is a multiple of 4, the factor by which the
        models' latents are smaller, so that a letter looks the same wherever it stands.
    """

    width: int
    height: int
    stroke: float
    pitch: int


FONTS: Final = {
    "bold": Font(13, 24, 4.0, 16),
    "light": Font(13, 24, 2.5, 16),
    "small": Font(10, 18, 3.0, 12),
}
"""Fonts by name; the models are trained on the first."""


@dataclass(frozen=True)
class Scene:
    """What is to be seen in a picture.

    Attributes
    ----------
    words
        Words to be written, in capitals; empty when there is no text.
    shape
        A key of ``SHAPES``, or of ``EMBLEMS`` in the layout ``logo``; None without shapes.
    count
        How many shapes; 0 without shapes.
    colour
        Colour of the shapes or, without any, of the letters.
    ink
        Colour of the letters; that of the shapes when there is no text.
    ground
        Colour of the background.
    layout
        One of :data:`LAYOUTS`.
    look
        ``plain``: flat and sharp. ``shiny``: shaded, with shadows, and spelled without care.
    font
        A key of :data:`FONTS`.
    """

    words: tuple[str, ...]
    shape: str | None
    count: int
    colour: str
    ink: str
    ground: str
    layout: str
    look: Look = "plain"
    font: str = "bold"
