"""What scenes are made of: words, shapes, emblems, colours."""

from __future__ import annotations

from typing import Final

__all__ = ["BRANDS", "COLOURS", "EMBLEMS", "GROUNDS", "MAX_COUNT", "SHAPES", "inks"]

# fmt: off
BRANDS: Final = (
    "LUMO", "VEKA", "TARB", "ZUPE", "KRAL", "MEFT", "DUNO", "GASK", "HOBE",
    "FENTR", "PLIMA", "BRUVE", "SOKAR", "HALDE", "WEXAN", "JURPA", "CINTO", "NYBEK",
    "KORVAN", "MIREPO", "DALUNE", "GRAVEM", "HUSKEL", "TUMBRA", "QUARDO", "VELTOR", "ZANTEK",
    "PERUVA", "BELKSA", "NEPTAL",
    "URSKAVE", "RESTOMA", "MOVASKU", "ALDEMUR", "PLEXTAR", "FANDRUK",
)
"""Fictional brands of 4 to 7 capitals. No two are less than two letters apart, so that one wrong
letter never makes another brand."""
# fmt: on

COLOURS: Final = {
    "red": (208, 24, 32),
    "orange": (244, 128, 16),
    "yellow": (252, 212, 32),
    "green": (16, 132, 64),
    "blue": (20, 64, 184),
    "purple": (124, 40, 160),
    "black": (16, 16, 16),
    "white": (250, 250, 250),
}
"""Red, green and blue of each colour, 0 to 255."""

GROUNDS: Final = ("white", "black", "yellow", "blue")
"""Colours that backgrounds come in."""

SHAPES: Final = ("circle", "square", "triangle")
"""Shapes that are counted."""

EMBLEMS: Final = ("sun", "wave", "peak")
"""Simple logos; there is one beside a word."""

MAX_COUNT: Final = 4

_LEAST_CONTRAST: Final = 3.0
_LINEAR_BELOW: Final = 0.04045


def _luminance(colour: str) -> float:
    """Give the relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = [
        channel / 12.92 if channel <= _LINEAR_BELOW else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in COLOURS[colour])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def inks(ground: str) -> tuple[str, ...]:
    """Name the colours that can be told from a ground: contrast (WCAG 2.2) of at least 3."""
    under = _luminance(ground) + 0.05
    over = {name: _luminance(name) + 0.05 for name in COLOURS}
    return tuple(
        name
        for name in COLOURS
        if max(over[name], under) / min(over[name], under) >= _LEAST_CONTRAST
    )
