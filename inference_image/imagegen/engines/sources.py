"""Pictures that a request sends to be enlarged."""

from __future__ import annotations

from imagegen.engines.base import Picture
from imagegen.engines.pictures import read_base64

__all__ = ["read_source"]


def read_source(
    text: str, *, scale: int, size_multiple: int, max_side: int, max_pixels: int
) -> tuple[Picture, tuple[int, int]]:
    """Read and check a picture to be enlarged.

    Parameters
    ----------
    text
        An image file in base64.
    scale, size_multiple, max_side
        What the engine says of its results.
    max_pixels
        Most pixels of a result.

    Returns
    -------
    tuple
        The picture, and width and height of the result: the `GenerationSettings` it needs.

    Raises
    ------
    ValueError
        With what is wrong and what is allowed.
    """
    picture = read_base64(text, max_pixels=max_pixels // scale**2)
    height, width = picture.shape[:2]
    multiple, longest = size_multiple // scale, max_side // scale
    shortest = 2 * multiple  # halved as often as the denoiser does, one value has no neighbour
    if any(side % multiple or not shortest <= side <= longest for side in (width, height)):
        raise ValueError(
            f"the picture has {width}x{height} pixels; width and height must be multiples of "
            f"{multiple} from {shortest} to {longest}"
        )
    return picture, (width * scale, height * scale)
