from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagegen.contract import StartupFailureCode
from imagegen.engines.base import Batch
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.diffusers.tuning import (
    attention_context,
    check_options,
    compile_blocks,
    denoiser_of,
)
from imagegen.engines.settings import DiffusersSettings, StepCache
from imagegen.errors import DeviceMemoryError, GenerationCancelledError, StartupError
from tests.unit.imagegen.conftest import ARCHITECTURES, DEMAND, load
from tests.unit.imagegen.engines import SETTINGS, levels, make

Folder = Callable[[str], Path]


def refusal(pipeline_class: str = "FluxPipeline", device: str = "cpu", **options: Any) -> str:
    batch_size = options.pop("max_batch_size", 1)
    with pytest.raises(StartupError) as caught:
        check_options(
            DiffusersSettings(Path("model"), **options),
            replace(DEMAND, max_batch_size=batch_size),
            pipeline_class=pipeline_class,
            device=device,
        )
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    return caught.value.message


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_plain_attention_kernel_gives_the_same_picture_to_one_level(
    model_folder: Folder, architecture: str
) -> None:
    usual = make(load(model_folder(architecture)), ["a fox"], [1])
    engine: DiffusersEngine = load(model_folder(architecture), attention="math")

    plain = make(engine, ["a fox"], [1])

    assert engine.describe()["attention"] == "math"
    assert np.abs(levels(plain) - levels(usual)).max() <= 1
    assert not np.array_equal(plain, usual)


def test_a_kernel_that_cannot_do_a_call_is_replaced_by_the_plain_one() -> None:
    query = torch.randn((1, 2, 8, 16), generator=torch.Generator().manual_seed(0))

    def attend(name: str) -> torch.Tensor:
        with attention_context(name)():
            return torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert torch.equal(attend("efficient"), attend("math"))  # a CPU has no such kernel


@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn"])
def test_attention_kernels_of_gpus_are_refused_on_a_cpu(name: str) -> None:
    assert refusal(attention=name) == f"--attention {name}: needs a CUDA device; use sdpa or math"


@pytest.mark.parametrize(
    ("name", "package"),
    [("xformers", "xformers"), ("flash-attn", "flash_attn"), ("sage", "sageattention")],
)
def test_an_attention_package_that_is_not_installed_is_named(name: str, package: str) -> None:
    assert f"the package {package} is not installed" in refusal(attention=name, device="cuda")


def test_attention_kernels_of_half_precision_are_refused_for_single() -> None:
    message = refusal(attention="flash", precision="Float32", device="cuda")
    assert "needs --precision BFloat16 or Float16" in message


@pytest.fixture
def compilations() -> Iterator[list[int]]:
    yield []
    torch._dynamo.reset()


@pytest.mark.parametrize("architecture", ["sd", "sd3"])
def test_repeated_blocks_are_compiled_and_give_the_same_picture(
    model_folder: Folder, architecture: str, compilations: list[int]
) -> None:
    engine: DiffusersEngine = load(model_folder(architecture))
    before = make(engine, ["a fox"], [1])

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compilations.append(len(graph.graph.nodes))
        return graph.forward

    compile_blocks(engine._pipeline, backend=backend)

    assert np.array_equal(make(engine, ["a fox"], [1]), before)
    assert compilations
    first = len(compilations)
    make(engine, ["a fox"], [2])
    assert len(compilations) == first, "the same shape must not be compiled again"


def test_compiling_needs_a_compiler_and_weights_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not go together with --offload" in refusal(compile="regional", offload="model")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "one of the compilers g++, c++, clang++" in refusal(compile="regional")


@pytest.mark.parametrize("how", ["model", "sequential"])
def test_offloading_is_refused_without_a_device_to_move_weights_to(how: str) -> None:
    assert refusal(offload=how) == f"--offload {how}: needs a CUDA device to move weights to"


@pytest.fixture
def small_tiles() -> Callable[[DiffusersEngine], DiffusersEngine]:
    def shrink(engine: DiffusersEngine) -> DiffusersEngine:
        vae = engine._pipeline.vae
        vae.tile_latent_min_size, vae.tile_sample_min_size = 16, 32
        return engine

    return shrink


def test_tiling_is_always_on_when_asked_once_or_never(
    model_folder: Folder, small_tiles: Callable[[DiffusersEngine], DiffusersEngine]
) -> None:
    def wide(engine: DiffusersEngine, *, tiled: bool) -> Any:
        return make(small_tiles(engine), ["a fox"], [1], width=96, tiled_decoding=tiled)

    auto = load(model_folder("sd"))
    always, never = (load(model_folder("sd"), vae_tiling=choice) for choice in ("on", "off"))
    whole, tiled = wide(auto, tiled=False), wide(auto, tiled=True)

    assert (auto.can_tile, always.can_tile, never.can_tile) == (True, True, False)
    assert not np.array_equal(whole, tiled)
    assert np.array_equal(wide(auto, tiled=False), whole)
    assert np.array_equal(wide(always, tiled=False), tiled)
    assert np.array_equal(wide(never, tiled=True), whole)


@pytest.mark.parametrize(("choice", "decoded"), [("on", [1, 1]), ("off", [2]), ("auto", [2])])
def test_a_batch_is_decoded_together_or_picture_by_picture(
    model_folder: Folder, choice: str, decoded: list[int]
) -> None:
    engine: DiffusersEngine = load(model_folder("sd"), vae_slicing=choice)
    sizes = []

    def watch(_: Any, inputs: tuple[torch.Tensor]) -> None:
        sizes.append(len(inputs[0]))

    engine._pipeline.vae.decoder.register_forward_pre_hook(watch)

    assert make(engine, ["a fox"] * 2, [1, 2]).shape == (2, 32, 32, 3)
    assert sizes == decoded


@pytest.mark.parametrize(("count", "apart"), [(1, False), (4, False), (5, True)])
def test_more_than_a_megapixel_is_decoded_picture_by_picture(
    model_folder: Folder, count: int, *, apart: bool
) -> None:
    engine: DiffusersEngine = load(model_folder("sd"))
    settings = replace(SETTINGS, width=512, height=512)
    with engine._decoding(Batch(("a fox",) * count, (1,) * count, settings)):
        assert engine._pipeline.vae.use_slicing is apart


CACHES = ["first-block:0.9", "taylorseer:2"]


@pytest.mark.parametrize("text", [*CACHES, "first-block:0.05"])
def test_a_cache_is_written_as_it_is_read(text: str) -> None:
    assert str(StepCache.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "first-block",
        "first-block:0",
        "first-block:1",
        "first-block:nan",
        "first-block:inf",
        "taylorseer",
        "taylorseer:1",
        "taylorseer:2.5",
        "taylorseer:99",
        "deepcache:2",
        ":",
        "none:1",
    ],
)
def test_what_is_no_cache_is_refused_with_what_is_one(text: str) -> None:
    assert StepCache.parse("none") is None
    with pytest.raises(ValueError, match="first-block:THRESHOLD"):
        StepCache.parse(text)


@pytest.mark.parametrize(
    "error",
    [
        GenerationCancelledError("given up"),
        RuntimeError("shapes"),
        MemoryError(),
        ValueError("too many values"),
    ],
)
@pytest.mark.parametrize("text", CACHES)
def test_a_step_cache_changes_pictures_and_forgets_a_call_that_did_not_end(
    model_folder: Folder, text: str, error: Exception
) -> None:
    usual = make(load(model_folder("flux")), ["a fox"], [1], steps=8)
    demand = replace(DEMAND, max_batch_size=1)
    engine: DiffusersEngine = load(model_folder("flux"), demand=demand, cache=StepCache.parse(text))
    cached = make(engine, ["a fox"], [1], steps=8)
    asked = 0

    def stop_in_the_middle() -> bool:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise error
        return False

    batch = Batch(("a door",), (9,), replace(SETTINGS, steps=8))
    with pytest.raises((type(error), DeviceMemoryError)):
        engine.generate(batch, should_stop=stop_in_the_middle)

    assert np.array_equal(make(engine, ["a fox"], [1], steps=8), cached)
    assert np.abs(cached - usual).max() > 1 / 255
    assert engine.describe()["cache"] == text


def test_a_cache_by_schedule_leaves_neighbours_alone(model_folder: Folder) -> None:
    engine: DiffusersEngine = load(model_folder("flux"), cache=StepCache.parse("taylorseer:3"))

    one = make(engine, ["a fox", "a tower"], [5, 6], steps=8)
    other = make(engine, ["a red door at noon", "a fox"], [8, 5], steps=8)

    assert np.array_equal(one[0], other[1])


def test_a_cache_that_couples_neighbours_must_be_accepted_to_batch() -> None:
    cache = StepCache.parse("first-block:0.1")
    message = refusal(cache=cache, max_batch_size=2)
    assert "--max-batch-size 1" in message
    assert "--cache-with-batching" in message
    check_options(
        DiffusersSettings(Path("model"), cache=cache, cache_with_batching=True),
        DEMAND,
        pipeline_class="FluxPipeline",
        device="cpu",
    )


def test_a_cache_that_diffusers_has_not_for_a_pipeline_is_refused() -> None:
    message = refusal("StableDiffusion3Pipeline", cache=StepCache.parse("taylorseer:2"))
    assert message.endswith("for FluxPipeline only, not StableDiffusion3Pipeline")


@pytest.fixture
def usual_algorithms() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("usual_algorithms")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_deterministic_algorithms_can_do_all_pipelines(
    model_folder: Folder, architecture: str
) -> None:
    engine: DiffusersEngine = load(model_folder(architecture), deterministic=True)
    first = make(engine, ["a fox", "a door"], [1, 2])

    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.allow_tf32
    assert engine.describe()["deterministic"] == "true"
    assert np.array_equal(make(engine, ["a fox", "a door"], [1, 2]), first)


def test_the_denoiser_is_what_is_called_in_every_step(model_folder: Folder) -> None:
    engine: DiffusersEngine = load(model_folder("sd3"))
    assert denoiser_of(engine._pipeline) is engine._pipeline.transformer
