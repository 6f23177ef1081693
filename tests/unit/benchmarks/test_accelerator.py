"""The models that the measurements on an accelerator are made with."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest

from benchmarks.serving.accelerator import engine_of, make
from imagegen.engines.base import Batch, GenerationSettings

SIDE = 64
NARROWEST = 32


@pytest.mark.parametrize(
    ("architecture", "scale", "shift"),
    [("sdxl", 0.13025, None), ("sd35-medium", 1.5305, 0.0609)],
)
def test_a_model_of_the_measurements_makes_pictures_from_latents_scaled_like_its_own(
    architecture: str, scale: float, shift: float | None, tmp_path: Path
) -> None:
    make(architecture, tmp_path, shrink=NARROWEST)
    engine = engine_of(tmp_path, SIDE, most=1, precision="Float32")

    one_step = Batch(("a red kite",), (0,), GenerationSettings(SIDE, SIDE, 1, 5.0))
    images = engine.generate(one_step, should_stop=lambda: False).images

    assert images.shape == (1, SIDE, SIDE, 3)
    assert np.isfinite(images).all()
    latents = diffusers.AutoencoderKL.load_config(tmp_path / "vae")
    assert (latents["scaling_factor"], latents["shift_factor"]) == (scale, shift)
