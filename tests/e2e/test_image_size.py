"""The images that run on the node."""

from __future__ import annotations

import pytest

from tests.cluster.images import MOST_CPU_BYTES, Images

pytestmark = pytest.mark.node


def test_the_inference_image_for_cpus_is_not_too_large(images: Images) -> None:
    size = images.inference.unpacked_bytes()
    assert size < MOST_CPU_BYTES, (
        f"{images.inference.name} is {size / 1e9:.2f} GB unpacked; the image for CPUs must stay "
        f"below {MOST_CPU_BYTES / 1e9:.0f} GB: look at what inference_image/Dockerfile removes"
    )
