"""What is to be seen in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["HEIGHT", "LAYOUTS", "WIDTH", "Look", "Scene"]

WIDTH: Final = 128
HEIGHT: Final = 64

Look = Literal["plain", "shiny"]

LAYOUTS: Final = ("left", "upper", "shapes", "centre", "lines", "logo")
"""Arrangements, in the order in which they are learned: a word from the left; a word above shapes;
shapes alone; a word in the middle; two words, one below the other; an emblem and a word."""


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
    """

    words: tuple[str, ...]
    shape: str | None
    count: int
    colour: str
    ink: str
    ground: str
    layout: str
    look: Look = "plain"
