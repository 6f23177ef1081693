from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, GenerationSettings, Images, Picture, Task
from imagegen.engines.diffusers.upscale import UpscaleEngine
from imagegen.engines.sources import read_source
from imagegen.errors import DeviceMemoryError, GenerationCancelledError, RequestRefusedError
from tests.unit.imagegen.conftest import load
from tests.unit.imagegen.engines import levels, never, out_of_memory_in

SCALES = {"upscaler": 4, "latent-upscaler": 2}


@pytest.fixture(scope="module", params=SCALES)
def engine(request: pytest.FixtureRequest, model_folder: Callable[[str], Path]) -> UpscaleEngine:
    return load(model_folder(request.param))  # type: ignore[no-any-return]


def picture(seed: int, width: int = 16, height: int = 16) -> Picture:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def batch(engine: UpscaleEngine, sources: list[Picture], seeds: list[int], **more: Any) -> Batch:
    height, width = (side * engine.scale for side in sources[0].shape[:2])
    settings = GenerationSettings(width, height, steps=2, guidance_scale=4.0)
    return Batch(("a fox",) * len(seeds), tuple(seeds), settings, sources=tuple(sources), **more)


def upscale(engine: UpscaleEngine, sources: list[Picture], seeds: list[int]) -> Images:
    return engine.generate(batch(engine, sources, seeds), should_stop=never).images


def test_a_picture_is_enlarged_by_the_models_factor(engine: UpscaleEngine) -> None:
    assert engine.task is Task.UPSCALE
    assert (
        engine.scale
        == SCALES["latent-upscaler" if "Latent" in engine.describe()["pipeline"] else "upscaler"]
    )
    images = upscale(engine, [picture(1, width=24)], [1])
    assert images.shape == (1, 16 * engine.scale, 24 * engine.scale, 3)
    assert np.isfinite(images).all()


def test_every_multiple_can_be_enlarged(engine: UpscaleEngine) -> None:
    step = engine.size_multiple // engine.scale
    for width, height in ((2 * step, 2 * step), (3 * step, 2 * step), (2 * step, 5 * step)):
        images = upscale(engine, [picture(1, width, height)], [1])
        assert images.shape == (1, height * engine.scale, width * engine.scale, 3)


def test_the_same_call_gives_the_same_pictures(engine: UpscaleEngine) -> None:
    first = upscale(engine, [picture(1), picture(2)], [1, 2])
    upscale(engine, [picture(3)], [3])
    assert np.array_equal(upscale(engine, [picture(1), picture(2)], [1, 2]), first)


def test_a_picture_of_a_batch_is_its_solo_picture_to_one_level(engine: UpscaleEngine) -> None:
    together = levels(upscale(engine, [picture(1), picture(2)], [5, 6]))
    for index in range(2):
        alone = levels(upscale(engine, [picture(index + 1)], [5 + index]))[0]
        assert np.abs(together[index] - alone).max() <= 1


def test_source_seed_and_prompt_matter(engine: UpscaleEngine) -> None:
    image = upscale(engine, [picture(1)], [1])
    other = replace(batch(engine, [picture(1)], [1]), prompts=("a green house by the sea",))

    assert not np.array_equal(upscale(engine, [picture(2)], [1]), image)
    assert not np.array_equal(upscale(engine, [picture(1)], [2]), image)
    assert not np.array_equal(engine.generate(other, should_stop=never).images, image)


def test_negative_prompts_have_an_effect(engine: UpscaleEngine) -> None:
    one = batch(engine, [picture(1)], [1])
    plain = engine.generate(one, should_stop=never).images
    negative = engine.generate(replace(one, negative_prompts=("grey",)), should_stop=never).images
    assert not np.array_equal(plain, negative)


def test_stages_and_steps_are_measured(engine: UpscaleEngine) -> None:
    made = engine.generate(batch(engine, [picture(1)], [1]), should_stop=never)
    assert set(made.stages) == {"encode", "denoise", "decode"}
    assert len(made.steps) == 2


def test_a_call_that_is_given_up_or_runs_out_of_memory_leaves_no_trace(
    engine: UpscaleEngine,
) -> None:
    before = upscale(engine, [picture(1)], [1])
    with pytest.raises(GenerationCancelledError):
        engine.generate(batch(engine, [picture(2)], [2]), should_stop=lambda: True)
    undo = out_of_memory_in(engine._pipeline.vae.decoder)
    with pytest.raises(DeviceMemoryError) as caught:
        upscale(engine, [picture(2)], [2])
    undo()

    assert caught.value.phase == OomPhase.DECODE
    assert np.array_equal(upscale(engine, [picture(1)], [1]), before)


def test_a_warm_up_brings_its_own_sources(engine: UpscaleEngine) -> None:
    settings = GenerationSettings(64, 32, steps=1, guidance_scale=0.0)
    images = engine.generate(engine.example("x", 2, settings), should_stop=never).images
    assert images.shape == (2, 32, 64, 3)


def test_without_a_source_of_the_right_size_the_request_is_refused(engine: UpscaleEngine) -> None:
    settings = GenerationSettings(64, 64, steps=1, guidance_scale=0.0)
    for sources in ((), (picture(1, width=8),)):
        with pytest.raises(RequestRefusedError, match="this model enlarges pictures") as caught:
            engine.generate(Batch(("x",), (1,), settings, sources=sources), should_stop=never)
        assert caught.value.status == 400


def test_a_source_belongs_to_every_picture_or_to_none() -> None:
    settings = GenerationSettings(64, 64, steps=1, guidance_scale=0.0)
    with pytest.raises(ValueError, match="sources are there for all"):
        Batch(("x", "y"), (1, 2), settings, sources=(picture(1),))
    whole = Batch(("x", "y"), (1, 2), settings, sources=(picture(1), picture(2)))
    assert np.array_equal(whole.halves()[1].sources[0], picture(2))


def encoded(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


RULES = {"scale": 4, "size_multiple": 32, "max_side": 1024, "max_pixels": 512 * 512}


def test_a_source_is_read_with_the_size_of_its_result() -> None:
    source, size = read_source(encoded(128, 64), **RULES)
    assert source.shape == (64, 128, 3)
    assert size == (512, 256)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (136, 128, "must not exceed 16384"),
        (20, 16, "multiples of 8 from 16 to 256"),
        (264, 16, "multiples of 8 from 16 to 256"),
        (64, 8, "multiples of 8 from 16 to 256"),
    ],
)
def test_a_source_that_cannot_be_enlarged_is_refused(width: int, height: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_source(encoded(width, height), **RULES)
