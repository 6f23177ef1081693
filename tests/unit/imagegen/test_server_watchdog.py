from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imagegen import contract
from imagegen.engines.base import Batch, GenerationSettings
from imagegen.server.watchdog import Expected, check_picture, to_pixels
from tests.unit.imagegen.conftest import ARCHITECTURES, MoodyServer, load

SIDE = 384
Values = NDArray[np.float32]


def found(values: NDArray[Any], *checks: str) -> str | None:
    picture = values.astype(np.float32)
    height, width = picture.shape[:2]
    return check_picture(picture, Expected(width, height, checks or contract.WATCHDOG_CHECKS))


def scenery(seed: int = 1) -> NDArray[Any]:
    """Three channels whose spectrum falls as that of photographs; mean 0, deviation 1."""
    random = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))
    frequency = np.maximum(np.hypot(rows, columns), 1 / SIDE)
    channels = [
        np.fft.ifft2(np.fft.fft2(random.normal(size=(SIDE, SIDE))) / frequency).real
        for _ in range(3)
    ]
    return np.stack([(each - each.mean()) / each.std() for each in channels], axis=-1)


def photograph() -> NDArray[Any]:
    return np.clip(0.5 + 0.2 * scenery(), 0, 1)


def noise(side: int = SIDE) -> NDArray[Any]:
    return np.random.default_rng(2).random((side, side, 3))


def drawing(paper: str, inks: list[str], lines: int, width: int) -> NDArray[Any]:
    random = np.random.default_rng(3)
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), paper)
    pen = ImageDraw.Draw(image)
    for number in range(lines):
        points = [tuple(map(int, random.integers(0, 2 * SIDE, 2))) for _ in range(3)]
        pen.line(points, fill=inks[number % len(inks)], width=width)
    pen.text((60, 60), "SALE 50% OFF", font=ImageFont.load_default(size=90), fill=inks[0])
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)) / 255


def squares(side: int) -> NDArray[Any]:
    rows, columns = np.indices((SIDE, SIDE)) // side
    return np.repeat(((rows + columns) % 2)[..., None], 3, axis=2).astype(float)


FINE = {
    "photograph": photograph(),
    "photograph with much sky blown out": np.clip(0.9 + 0.4 * scenery()[..., :1] * [1, 1, 1], 0, 1),
    "grain": np.clip(0.5 + 0.1 * scenery() + 0.1 * (noise() - 0.5), 0, 1),
    "line art": drawing("white", ["black"], 60, 6),
    "line art, inverse": drawing("black", ["white"], 60, 6),
    "dense hatching": drawing("white", ["black"], 900, 3),
    "poster": drawing("red", ["yellow", "blue"], 120, 20),
    "large checks": squares(48),
    "checks of one pixel": squares(1),
    "half black, half noise": np.concatenate(
        [np.zeros((SIDE, SIDE // 2, 3)), noise()[:, : SIDE // 2]], axis=1
    ),
}
BROKEN = {
    "noise": (noise(), "noise_like"),
    "weak noise": (0.5 + 0.05 * (noise() - 0.5), "noise_like"),
    "little noise": (noise(16), "noise_like"),
    "noise in black and white": (np.round(noise()), "clipped"),
    "burnt": (np.clip(0.5 + 2 * scenery(), 0, 1), "clipped"),
    "burnt out": (np.clip(0.5 + 50 * scenery(), 0, 1), "clipped"),
    "black": (np.zeros((SIDE, SIDE, 3)), "flat"),
    "grey": (np.full((SIDE, SIDE, 3), 0.5), "flat"),
    "one colour": (np.tile([0.8, 0.1, 0.3], (SIDE, SIDE, 1)), "flat"),
    "almost grey": (0.5 + 0.004 * scenery(), "flat"),
    "one pixel is no number": (np.where(np.indices((64, 64, 3)).sum(0), 0.5, np.nan), "non_finite"),
    "one value is infinite": (np.where(np.indices((64, 64, 3)).sum(0), 0.5, np.inf), "non_finite"),
}


@pytest.mark.parametrize("name", FINE)
def test_pictures_as_people_want_them_pass(name: str) -> None:
    assert found(FINE[name]) is None


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_told_by_what_ails_them(name: str) -> None:
    picture, check = BROKEN[name]
    assert found(picture) == check
    assert check in contract.WATCHDOG_CHECKS


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_can_be_switched_off(name: str) -> None:
    picture, check = BROKEN[name]
    others = [each for each in contract.WATCHDOG_CHECKS if each != check]
    assert found(picture, *others) != check


@pytest.mark.parametrize("shape", [(32, 64, 3), (64, 32, 1), (32, 32, 3), (64, 32, 4)])
def test_a_picture_of_another_size_is_refused_whatever_the_checks(shape: tuple[int, ...]) -> None:
    assert check_picture(np.full(shape, 0.5, np.float32), Expected(32, 64, ())) == "wrong_size"


@given(st.integers(16, 200), st.integers(16, 200), st.integers(0, 2**32 - 1))
def test_noise_of_any_size_is_noise(width: int, height: int, seed: int) -> None:
    picture = np.random.default_rng(seed).random((height, width, 3))
    assert found(picture) == "noise_like"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_pipelines_with_random_weights_pass(
    model_folder: Callable[[str], Path], architecture: str
) -> None:
    engine = load(model_folder(architecture))
    for width, steps, guidance in ((32, 1, 0.0), (32, 2, 5.0), (96, 2, 50.0)):
        settings = GenerationSettings(width, 32, steps, guidance)
        batch = Batch(("a fox",) * 2, (1, 2), settings)
        made = engine.generate(batch, should_stop=lambda: False)
        assert [found(picture) for picture in made.images] == [None, None]


def test_values_are_rounded_to_the_nearest_level_and_never_wrap() -> None:
    values = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.499 / 255]]], np.float32)
    assert to_pixels(values).tolist() == [[[0, 128, 255], [0, 255, 0]]]
    odd = np.array([[[math.nan, math.inf, -math.inf]]], np.float32)
    assert to_pixels(odd).tolist() == [[[0, 255, 0]]]


def test_a_server_can_be_told_not_to_check(moody_server: MoodyServer) -> None:
    with moody_server(watchdog=frozenset()) as (server, trouble):
        trouble.blank = True
        assert server.generate().status_code == 200
        assert server.value(contract.WATCHDOG_REJECTIONS_TOTAL) == 0
