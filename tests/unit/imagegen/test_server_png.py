from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from imagegen.server.png import encode_png


def decoded(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        image.load()
        return np.asarray(image)


@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
        elements=st.integers(0, 255),
    )
)
def test_what_is_read_is_what_was_written(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


@pytest.mark.parametrize("height", [1, 127, 128, 255, 256, 257, 1023])
def test_bands_that_were_packed_apart_are_one_picture(height: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, 33, 3), dtype=np.uint8)
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_a_reader_that_checks_the_sums_is_content() -> None:
    data = encode_png(np.random.default_rng(1).integers(0, 256, (300, 40, 3), dtype=np.uint8))
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(broken(data))) as image:
        image.load()


def broken(data: bytes) -> bytes:
    """Change one byte in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_flat_and_drawn_pictures_become_small() -> None:
    drawn = np.full((512, 512, 3), 255, np.uint8)
    drawn[100:110] = drawn[:, 200:203] = 0
    assert len(encode_png(drawn)) < drawn.size / 100
