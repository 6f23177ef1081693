from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, Engine, Images, StageClock
from imagegen.engines.diffusers.engine import DiffusersEngine, is_out_of_memory
from imagegen.engines.diffusers.schedulers import FLOW_MATCHING, NOISE_PREDICTING
from imagegen.engines.diffusers.tuning import denoiser_of
from imagegen.engines.presets import PRESETS
from imagegen.engines.settings import DiffusersSettings
from imagegen.errors import (
    DeviceMemoryError,
    EngineBrokenError,
    GenerationCancelledError,
    StartupError,
)
from imagegen.miniature.tiny import build_tiny
from tests.unit.imagegen.conftest import ARCHITECTURES, DEMAND, MoodyEngine, Trouble, load
from tests.unit.imagegen.engines import (
    SETTINGS,
    failing_in,
    levels,
    make,
    never,
    out_of_memory_in,
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(request: pytest.FixtureRequest, model_folder: Callable[[str], Path]) -> DiffusersEngine:
    return load(model_folder(request.param))  # type: ignore[no-any-return]


def test_the_same_batch_is_bit_equal_whatever_was_made_in_between(engine: Engine) -> None:
    first = make(engine, ["a fox", "a tower"], [1, 2])
    make(engine, ["something else"], [9], steps=3)

    assert np.array_equal(make(engine, ["a fox", "a tower"], [1, 2]), first)


def test_an_image_of_a_batch_is_its_solo_image_to_one_level(engine: Engine) -> None:
    together = levels(make(engine, ["a fox"] * 3, [5, 6, 7]))

    for index, seed in enumerate([5, 6, 7]):
        alone = levels(make(engine, ["a fox"], [seed]))[0]
        assert np.abs(together[index] - alone).max() <= 1


def test_at_the_same_batch_shape_neighbours_change_nothing(engine: Engine) -> None:
    one = make(engine, ["a fox", "a tower"], [5, 6])
    other = make(engine, ["a red door at noon", "a fox"], [8, 5])

    assert np.array_equal(one[0], other[1])


def test_prompts_and_seeds_matter(engine: Engine) -> None:
    image = make(engine, ["a fox"], [1])

    assert np.abs(make(engine, ["a green house by the sea"], [1]) - image).mean() > 0.01
    assert np.abs(make(engine, ["a fox"], [2]) - image).mean() > 0.01


def test_pictures_have_the_asked_shape_and_use_the_range(engine: Engine) -> None:
    images = make(engine, ["a fox"], [1], width=48, height=32)

    assert images.shape == (1, 32, 48, 3)
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.05


def test_stages_and_steps_are_measured(engine: Engine) -> None:
    made = engine.generate(Batch(("a fox",), (1,), SETTINGS), should_stop=never)

    assert set(made.stages) == {"encode", "denoise", "decode"}
    assert len(made.steps) == SETTINGS.steps


def test_a_generation_is_given_up_at_a_step_boundary_and_leaves_no_trace(engine: Engine) -> None:
    before = make(engine, ["a fox"], [1])
    with pytest.raises(GenerationCancelledError):
        engine.generate(Batch(("a fox",), (1,), SETTINGS), should_stop=lambda: True)

    assert np.array_equal(make(engine, ["a fox"], [1]), before)


def test_requests_of_one_batch_keep_their_own_negative_prompts(engine: Engine) -> None:
    def three(*negative: str | None) -> Images:
        batch = Batch(("a fox",) * 3, (1, 2, 3), SETTINGS, negative)
        return engine.generate(batch, should_stop=never).images

    mixed, plain = three("grey", "red and blurred", "grey"), three("grey", "grey", "grey")

    assert np.array_equal(mixed[[0, 2]], plain[[0, 2]])
    assert np.array_equal(mixed[1], plain[1]) is not engine.takes_negative_prompt


@pytest.mark.parametrize("engine", ["sd3", "flux"], indirect=True)
def test_no_part_of_a_prompt_is_printed(
    engine: Engine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("diffusers", "transformers"):  # they keep what was stderr when they came
        for handler in logging.getLogger(library).handlers:
            if type(handler) is logging.StreamHandler:
                monkeypatch.setattr(handler, "stream", sys.stderr)
    make(engine, ["a fox " * 20 + "in the secret garden"], [1])

    assert "secret" not in "".join(capfd.readouterr())


def test_the_safety_checker_of_a_folder_is_left_out(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8}
    checker = StableDiffusionSafetyChecker(
        transformers.CLIPConfig(
            vision_config={**vision, "intermediate_size": 8, "patch_size": 4}, projection_dim=8
        )
    )
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2)  # any picture is blackened
    pipeline = build_tiny("sd", seed=1)
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
        ),
    )
    pipeline.register_to_config(requires_safety_checker=True)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)

    images = make(load(tmp_path), ["a fox"], [1])

    # Weights that lie elsewhere in memory may round otherwise; a black picture is no rounding.
    assert np.allclose(images, make(load(model_folder("sd")), ["a fox"], [1]), atol=1e-5)


def test_a_denoiser_that_takes_guidance_reads_no_negative_prompt(tmp_path: Path) -> None:
    pipeline = build_tiny("sd", seed=1)
    config = {name: value for name, value in pipeline.unet.config.items() if name[0] != "_"}
    unet = type(pipeline.unet)(**{**config, "time_cond_proj_dim": 8})
    pipeline.register_modules(unet=unet)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)

    assert load(tmp_path, preset="standard").takes_negative_prompt is False


def test_negative_prompts_are_there_for_all_pictures_or_for_none() -> None:
    with pytest.raises(ValueError, match="or for none"):
        Batch(("a fox",) * 2, (1, 2), SETTINGS, ("grey", None))


def test_halves_keep_what_belongs_to_a_picture() -> None:
    first, second = Batch(("a", "b", "c"), (1, 2, 3), SETTINGS, ("x", "y", "z")).halves()
    assert first == Batch(("a", "b"), (1, 2), SETTINGS, ("x", "y"))
    assert second == Batch(("c",), (3,), SETTINGS, ("z",))


def test_decoding_in_tiles_is_for_one_call(model_folder: Callable[[str], Path]) -> None:
    engine: DiffusersEngine = load(model_folder("sd"))
    assert engine.can_tile
    engine._pipeline.vae.tile_latent_min_size, engine._pipeline.vae.tile_sample_min_size = 16, 32
    before = make(engine, ["a fox"], [1], width=96)

    tiled = make(engine, ["a fox"], [1], width=96, tiled_decoding=True)

    assert not np.array_equal(tiled, before)
    assert np.abs(tiled - before).mean() < 0.1
    assert np.array_equal(make(engine, ["a fox"], [1], width=96), before)


def test_a_request_may_choose_its_sampler(model_folder: Callable[[str], Path]) -> None:
    engine: DiffusersEngine = load(model_folder("sd"))
    own = make(engine, ["a fox"], [1], steps=3)

    other = make(engine, ["a fox"], [1], steps=3, scheduler="EulerDiscrete")

    assert not np.array_equal(other, own)
    assert np.array_equal(make(engine, ["a fox"], [1], steps=3, scheduler="DDIM"), own)
    with pytest.raises(ValueError, match="not one of DDIM"):
        make(engine, ["a fox"], [1], scheduler="FlowMatchEulerDiscrete")


def test_tokens_are_counted_as_the_model_reads_them(engine: DiffusersEngine) -> None:
    pipeline = engine._pipeline
    tokenizers = [part for name, part in pipeline.components.items() if "tokenizer" in name]
    counts = {len(tokenizer("a fox, 3 hats").input_ids) for tokenizer in tokenizers}
    limits = {
        "StableDiffusionPipeline": 77,
        "StableDiffusionXLPipeline": 77,
        "StableDiffusion3Pipeline": 256,
        "FluxPipeline": 512,
    }

    assert engine.count_tokens("a fox, 3 hats") in counts
    assert engine.count_tokens("x " * 500) > 500
    assert engine.max_prompt_tokens == limits[type(pipeline).__name__]


@pytest.mark.parametrize(
    ("architecture", "scheduler"),
    [
        *(("sd", name) for name in NOISE_PREDICTING),
        *((architecture, name) for architecture in ("sd3", "flux") for name in FLOW_MATCHING),
    ],
)
def test_every_allowed_sampler_samples(
    model_folder: Callable[[str], Path], architecture: str, scheduler: str
) -> None:
    engine = load(model_folder(architecture), scheduler=scheduler)
    assert engine.describe()["scheduler"] == scheduler
    for steps in (1, 4):
        images = make(engine, ["a fox"], [1], steps=steps)
        assert np.isfinite(images).all()
        assert np.array_equal(make(engine, ["a fox"], [1], steps=steps), images)


@pytest.mark.parametrize("architecture", ["sd3", "flux"])
def test_a_better_sampler_of_flows_comes_nearer_to_the_same_picture(
    model_folder: Callable[[str], Path], architecture: str
) -> None:
    engine = load(model_folder(architecture))
    exact = make(engine, ["a fox"], [1], steps=100)

    def distance(**settings: Any) -> float:
        return float(np.abs(make(engine, ["a fox"], [1], steps=10, **settings) - exact).mean())

    assert distance(scheduler="UniPCMultistep") < distance()


def test_a_model_that_was_trained_with_so_many_timesteps_takes_no_more_steps(
    model_folder: Callable[[str], Path],
) -> None:
    demand = replace(DEMAND, max_steps=2000)
    engines = {name: load(model_folder(name), demand=demand) for name in ("sd", "sd3")}

    assert engines["sd"].max_steps == 999
    assert engines["sd3"].max_steps is None


def test_a_sampler_that_cannot_take_the_allowed_steps_is_refused(
    model_folder: Callable[[str], Path],
) -> None:
    with pytest.raises(StartupError, match="LCM cannot sample this model"):
        load(model_folder("sd"), demand=replace(DEMAND, max_steps=51), scheduler="LCM")


def test_precision_is_the_weights_number_format(model_folder: Callable[[str], Path]) -> None:
    engine = load(model_folder("sd"), precision="BFloat16")
    assert engine.describe()["dtype"] == "BFloat16"
    assert engine._pipeline.unet.dtype == torch.bfloat16
    assert np.isfinite(make(engine, ["a fox"], [1])).all()


def moody(folder: Path, **trouble: Any) -> MoodyEngine:
    engine: MoodyEngine = load(folder, MoodyEngine)
    engine.trouble = Trouble(**trouble)
    return engine


def test_running_out_of_memory_tells_the_phase_and_leaves_a_usable_engine(
    model_folder: Callable[[str], Path],
) -> None:
    engine = moody(model_folder("sd"), fits=1)
    before = make(engine, ["a fox"], [1])

    with pytest.raises(DeviceMemoryError) as caught:
        make(engine, ["a fox", "a fox"], [1, 2])

    assert caught.value.phase == OomPhase.DECODE
    assert caught.value.__context__ is None, "the failed attempt's frames must not be kept alive"
    assert np.array_equal(make(engine, ["a fox"], [1]), before)


def test_a_sick_device_is_told_from_a_full_one(model_folder: Callable[[str], Path]) -> None:
    engine = moody(
        model_folder("sd"), error=torch.AcceleratorError("CUDA error: device-side assert triggered")
    )
    with pytest.raises(EngineBrokenError):
        make(engine, ["a fox"], [1])


PHASES = {
    "text_encoder": OomPhase.ENCODE,
    "denoiser": OomPhase.DENOISE,
    "vae.decoder": OomPhase.DECODE,
}


@pytest.mark.parametrize("part", PHASES)
def test_memory_may_run_out_anywhere_and_the_next_picture_is_right(
    engine: DiffusersEngine, part: str
) -> None:
    pipeline = engine._pipeline
    before = make(engine, ["a fox", "a door"], [1, 2])
    victim = denoiser_of(pipeline) if part == "denoiser" else attrgetter(part)(pipeline)
    undo = out_of_memory_in(victim, at_call=2 if part == "denoiser" else 1)

    with pytest.raises(DeviceMemoryError) as caught:
        make(engine, ["a fox", "a door"], [3, 4])

    undo()
    assert caught.value.phase == PHASES[part]
    assert np.array_equal(make(engine, ["a fox", "a door"], [1, 2]), before)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceMemoryError),
        (RuntimeError("shapes"), RuntimeError),
        (IndexError("out of range"), IndexError),
    ],
)
def test_a_decoder_that_was_cast_for_a_picture_is_cast_back_however_the_call_ends(
    model_folder: Callable[[str], Path], error: Exception, told: type[Exception]
) -> None:
    engine: DiffusersEngine = load(model_folder("sdxl"), precision="Float16")
    before = make(engine, ["a fox"], [1])
    vae = engine._pipeline.vae
    casts = []
    undo_watch = vae.decoder.register_forward_pre_hook(lambda *_: casts.append(vae.dtype))
    undo = failing_in(vae.decoder, error)

    with pytest.raises(told):
        make(engine, ["a fox"], [2])

    undo()
    undo_watch.remove()
    assert casts == [torch.float32]  # SDXL's decoder overflows in half precision
    assert vae.dtype == torch.float16
    assert np.array_equal(make(engine, ["a fox"], [1]), before)


def test_a_pipeline_in_training_mode_is_put_into_evaluation_mode() -> None:
    pipeline = build_tiny("sd3", seed=1)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.train()
    settings = DiffusersSettings(Path("built"), precision="Float32")
    engine = DiffusersEngine(
        pipeline,
        settings=settings,
        preset=PRESETS["standard"],
        scheduler="FlowMatchEulerDiscrete",
        schedulers=FLOW_MATCHING,
        device=torch.device("cpu"),
    )

    first = make(engine, ["a fox"], [1])

    assert np.array_equal(make(engine, ["a fox"], [1]), first)


def test_a_clock_ends_a_stage_where_the_next_one_begins() -> None:
    times = iter([0.0, 2.0, 3.0, 5.0, 6.0, 10.0])
    clock = StageClock(lambda: next(times))
    clock.enter(OomPhase.DENOISE)
    clock.step_ended()
    clock.enter(OomPhase.DENOISE)
    clock.step_ended()
    clock.enter(OomPhase.DECODE)

    stages, steps = clock.finish()

    assert stages == {"encode": 2.0, "denoise": 4.0, "decode": 4.0}
    assert steps == [1.0, 2.0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOENT, "No such file: out of memory"), False),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_recognised(error: Exception, *, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_hosts_allocator_saying_no_is_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
