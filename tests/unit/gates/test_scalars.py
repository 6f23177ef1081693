"""What is a number in the evidence, and how a message shows what is none."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from modelrollout.gates.scalars import is_finite, plain, shown
from modelrollout.gates.totals import LARGEST_COUNT, is_count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.5, 0.5),
        (np.int64(3), 3),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
    ],
)
def test_numbers_of_numpy_are_numbers(value: Any, expected: float) -> None:
    assert (plain(value), type(plain(value))) == (expected, type(expected))
    assert is_finite(value)
    assert is_count(value) is (expected != 0.5)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "3",
        True,
        np.bool_(True),
        Decimal(3),
        Decimal("sNaN"),
        Fraction(3),
        3j,
        [3],
        np.ones(2),
    ],
)
def test_what_only_looks_like_a_number_is_none(value: Any) -> None:
    assert plain(value) is None
    assert not is_finite(value)
    assert not is_count(value)


def test_what_no_float_can_hold_is_not_finite() -> None:
    for value in (math.nan, math.inf, -math.inf, 10**400, -(10**5000)):
        assert not is_finite(value)
        assert not is_count(value)


def test_a_count_is_whole_and_exact() -> None:
    assert is_count(LARGEST_COUNT)
    assert is_count(np.int64(LARGEST_COUNT))
    for wrong in (LARGEST_COUNT + 1, np.int64(LARGEST_COUNT + 1), 1.5, -1, np.int8(-1)):
        assert not is_count(wrong)


def test_whatever_it_is_a_message_can_show_it() -> None:
    said: list[tuple[Any, str]] = [
        (174, "174"),
        (np.int64(174), "174"),
        (0.25, "0.25"),
        (math.nan, "nan"),
        (-(10**30), "-1e+30"),
        (10**400, "about 1e400"),
        (-(10**5000), "about -1e5000"),
        (None, "None"),
        ("nine", "nine"),
        (True, "True"),
        (Decimal("NaN"), "Decimal('NaN')"),
        ([10**5000], "a list"),
        (Fraction(10**5000, 3), "a Fraction"),
        ("x" * 99, "x" * 38 + " …"),
    ]
    assert [shown(value) for value, _ in said] == [words for _, words in said]
