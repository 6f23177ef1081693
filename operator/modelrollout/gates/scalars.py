"""What is a number in the evidence, and how a message shows what is none."""

from __future__ import annotations

import math
import sys
from numbers import Integral, Rational, Real
from typing import Final

__all__ = ["is_finite", "plain", "shown"]

_LARGEST: Final = sys.float_info.max

_MOST_SHOWN: Final = 10**15
"""Whole numbers up to it are told digit by digit."""

_MOST_CHARACTERS: Final = 40
"""Of what is no number, in a message."""


def plain(value: object) -> int | float | None:
    """Return a number of Python or NumPy as one of Python; None for all else.

    Truth values, fractions and decimals are none: nothing that is counted or measured is one, and
    arithmetic with floats does not take them.
    """
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[return-value]
    if kind is bool or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    return None if isinstance(value, Rational) else float(value)


def is_finite(value: object) -> bool:
    """Tell whether a value is a number that a 64-bit float can hold."""
    number = plain(value)
    return number is not None and -_LARGEST <= number <= _LARGEST


def shown(value: object) -> str:
    """Return a value as a message shows it: short, whatever it is."""
    number = plain(value)
    if number is None:
        return _clipped(value)
    if isinstance(number, float):
        return str(number)
    if -_MOST_SHOWN <= number <= _MOST_SHOWN:
        return str(number)
    if is_finite(number):
        return f"{number:.6g}"
    return f"about {'-' if number < 0 else ''}1e{math.log10(abs(number)):.0f}"


def _clipped(value: object) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # such as for the digits of a huge number in it
        return f"a {type(value).__name__}"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 2]} …"
