from __future__ import annotations

import base64
import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagegen.engines.pictures import FORMATS, read_base64, read_picture
from tests.unit.imagegen.engines import levels


def file(mode: str = "RGB", format_: str = "PNG", size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(buffer, format=format_)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"])
def test_pictures_of_any_mode_become_colours_from_0_to_1(mode: str) -> None:
    picture = read_picture(file(mode), max_pixels=24)
    assert picture.shape == (4, 6, 3)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() <= picture.max() <= 1


def test_what_is_transparent_is_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(buffer, format="PNG")
    assert (read_picture(buffer.getvalue(), max_pixels=4) == 1).all()


def test_a_lossless_file_keeps_its_levels() -> None:
    data = file()
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(levels(read_picture(data, max_pixels=24)), expected)


@pytest.mark.parametrize(("side", "shown"), [(5_000, "5000x5000"), (20_000, "far too many")])
def test_a_small_file_of_a_huge_picture_is_refused_before_it_is_decoded(
    side: int, shown: str
) -> None:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, format="PNG", compress_level=1)
    assert len(buffer.getvalue()) < 1_000_000
    with pytest.raises(ValueError, match=f"{shown} pixels; width times height must not exceed"):
        read_picture(buffer.getvalue(), max_pixels=1 << 20)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(format_: str) -> None:
    with pytest.raises(ValueError, match="no intact PNG, JPEG, WEBP file"):
        read_picture(file(format_=format_), max_pixels=24)


def test_what_is_not_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="not base64"):
        read_base64("data:image/png;base64,AAAA", max_pixels=24)
    text = base64.b64encode(file()).decode()
    assert read_base64(text, max_pixels=24).shape == (4, 6, 3)


@given(
    format_=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 5000),
)
def test_a_damaged_file_gives_a_picture_or_a_reason(
    format_: str, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(file(format_=format_, size=(24, 24)))
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(ValueError):  # and nothing else
        picture = read_picture(bytes(data[: max(1, cut)]), max_pixels=10_000)
        assert np.isfinite(picture).all()
