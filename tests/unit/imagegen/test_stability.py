from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from imagegen.quality.stability import pixel_stability_deviation

SHAPE = (256, 256, 3)


def noisy(deviation: float, count: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(7)
    base = random.uniform(0.3, 0.7, SHAPE)
    return [
        (np.clip(base + random.normal(0, deviation, SHAPE), 0, 1) * 255).round().astype(np.uint8)
        for _ in range(count)
    ]


def test_identical_pictures_deviate_by_exactly_nothing() -> None:
    picture = noisy(0.1, 1)[0]
    assert pixel_stability_deviation([picture, picture.copy(), picture.copy()]) == 0.0


@pytest.mark.parametrize(
    ("deviation", "expected"), [(0.01, 0.01005), (0.05, 0.05002), (0.002, 0.0023)]
)
def test_additive_noise_is_read_back(deviation: float, expected: float) -> None:
    assert pixel_stability_deviation(noisy(deviation, 4)) == pytest.approx(expected, rel=0.01)


def test_half_of_the_samples_off_by_one_level() -> None:
    one = np.full((64, 64, 3), 100, dtype=np.uint8)
    other = one.copy()
    other[::2] += 1

    # s^2 is 1/2 of a level where they differ, on half of the samples.
    assert pixel_stability_deviation([one, other]) == pytest.approx(0.5 / 255, rel=1e-12)


def test_independent_uniform_noise() -> None:
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 256, SHAPE, dtype=np.uint8) for _ in range(4)]
    assert pixel_stability_deviation(pictures) == pytest.approx(1 / math.sqrt(12), rel=0.01)


@pytest.mark.parametrize(("count", "bound"), [(2, 0.707), (4, 0.577), (8, 0.535)])
def test_black_and_white_reach_the_bound(count: int, bound: float) -> None:
    pictures = [np.full((8, 8, 3), 255 * (i % 2), dtype=np.uint8) for i in range(count)]
    assert pixel_stability_deviation(pictures) == pytest.approx(bound, abs=5e-4)


def test_root_two_times_it_is_the_difference_of_two_random_members() -> None:
    pictures = noisy(0.03, 5)
    scaled = [picture / 255 for picture in pictures]
    pairs = [np.mean((scaled[i] - scaled[j]) ** 2) for i in range(5) for j in range(5) if i < j]
    expected = math.sqrt(float(np.mean(pairs)) / 2)
    assert pixel_stability_deviation(pictures) == pytest.approx(expected, rel=1e-9)


def test_what_cannot_be_compared_is_refused() -> None:
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="at least two"):
        pixel_stability_deviation([picture])
    with pytest.raises(ValueError, match="same shape"):
        pixel_stability_deviation([picture, np.zeros((4, 5, 3), dtype=np.uint8)])
    with pytest.raises(ValueError, match="8-bit"):
        pixel_stability_deviation([picture.astype(np.float32)])
