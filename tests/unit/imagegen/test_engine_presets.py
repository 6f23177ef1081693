from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from imagegen.contract import StartupFailureCode
from imagegen.engines.diffusers.schedulers import (
    FLOW_MATCHING,
    NOISE_PREDICTING,
    SchedulerFactory,
    allowed_schedulers,
    check_scheduler,
    usable_schedulers,
)
from imagegen.engines.folder import ModelFolder
from imagegen.engines.presets import PRESETS, check_demand, preset_for
from imagegen.errors import StartupError
from tests.unit.imagegen.conftest import DEMAND


def folder(
    pipeline: str = "StableDiffusionXLPipeline",
    scheduler: str = "EulerDiscreteScheduler",
    *,
    denoiser: dict[str, Any] | None = None,
    **config: Any,
) -> ModelFolder:
    name = "transformer" if "Flux" in pipeline or "3" in pipeline else "unet"
    return ModelFolder(
        Path("model"), pipeline, scheduler, {"scheduler": config, name: denoiser or {}}
    )


FLOW = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        (folder(timestep_spacing="leading"), "standard"),
        (folder(timestep_spacing="trailing"), "turbo"),
        (folder(scheduler="EulerAncestralDiscreteScheduler", timestep_spacing="trailing"), "turbo"),
        (folder(timestep_spacing="trailing", prediction_type="v_prediction"), "standard"),
        (folder(timestep_spacing="trailing", rescale_betas_zero_snr=True), "standard"),
        (folder(scheduler="DDIMScheduler", timestep_spacing="trailing"), "standard"),
        (folder(scheduler="LCMScheduler"), "lcm"),
        (folder(denoiser={"time_cond_proj_dim": 256}), "lcm"),
        (folder("FluxPipeline", FLOW, denoiser={"guidance_embeds": False}), "schnell"),
        (folder("FluxPipeline", FLOW, denoiser={"guidance_embeds": True}), "standard"),
        (folder("StableDiffusion3Pipeline", FLOW, shift=3.0), "standard"),
    ],
)
def test_a_distilled_model_is_recognised_by_its_configuration(
    model: ModelFolder, preset: str
) -> None:
    assert preset_for(model).name == preset


def test_what_is_declared_overrules_what_was_recognised() -> None:
    turbo = folder(timestep_spacing="trailing")
    assert preset_for(turbo, "standard").max_steps is None
    assert preset_for(folder("StableDiffusion3Pipeline", FLOW), "turbo").max_steps == 10


def test_defaults_follow_the_kind_of_model() -> None:
    assert preset_for(folder()).guidance_scale == 5.0
    assert preset_for(folder("StableDiffusionPipeline")).guidance_scale == 7.5
    assert preset_for(folder(scheduler="LCMScheduler")).guidance_scale == 1.0
    embedded = preset_for(folder(scheduler="LCMScheduler", denoiser={"time_cond_proj_dim": 256}))
    assert embedded.guidance_scale == 8.0
    for preset in PRESETS.values():
        low, high = preset.guidance_range or (0, 50)
        assert low <= preset.guidance_scale <= high
        assert preset.steps <= (preset.max_steps or preset.steps)


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ({"steps": 25, "guidance_scale": 0.0}, "at most 10 steps make sense, --steps is 25"),
        ({"steps": 4, "guidance_scale": 7.5}, "guidance must be 0 to 1, --guidance-scale is 7.5"),
    ],
)
def test_defaults_that_make_no_sense_for_a_distilled_model_are_refused(
    demand: dict[str, Any], words: str
) -> None:
    turbo = preset_for(folder(timestep_spacing="trailing"))
    with pytest.raises(StartupError) as caught:
        check_demand(turbo, replace(DEMAND, **demand))
    message = caught.value.message
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    assert words in message
    assert "kind turbo (its EulerDiscreteScheduler has trailing timesteps)" in message
    assert "--preset standard" in message


def test_a_wide_limit_on_steps_is_no_mistake_but_narrowed() -> None:
    turbo = preset_for(folder(timestep_spacing="trailing"))
    demand = replace(DEMAND, steps=4, guidance_scale=0.0, max_steps=100)

    check_demand(turbo, demand)

    assert turbo.most_steps(demand) == 10
    assert PRESETS["standard"].most_steps(demand) == 100


def usable(model: ModelFolder, *, max_steps: int = 40) -> tuple[str, ...]:
    return usable_schedulers(model, preset_for(model), max_steps=max_steps)


def test_samplers_fit_the_way_a_model_was_trained() -> None:
    assert usable(folder()) == NOISE_PREDICTING
    assert usable(folder(prediction_type="v_prediction")) == NOISE_PREDICTING
    assert usable(folder("FluxPipeline", FLOW, denoiser={"guidance_embeds": True})) == FLOW_MATCHING
    assert usable(folder(scheduler="LCMScheduler")) == ("LCM",)


@pytest.mark.parametrize(
    ("config", "max_steps", "unfit"),
    [
        ({"prediction_type": "sample"}, 40, {"EulerAncestralDiscrete", "PNDM"}),
        ({"rescale_betas_zero_snr": True}, 40, {"PNDM"}),
        ({}, 51, {"LCM"}),
        ({"original_inference_steps": 100}, 51, set()),
    ],
)
def test_samplers_that_cannot_do_it_are_left_out(
    config: dict[str, Any], max_steps: int, unfit: set[str]
) -> None:
    assert set(NOISE_PREDICTING) - set(usable(folder(**config), max_steps=max_steps)) == unfit


def test_more_steps_than_there_are_timesteps_are_for_samplers_that_count_in_fractions() -> None:
    model = folder("StableDiffusion3Pipeline", FLOW, shift=3.0)
    assert usable(model, max_steps=333) == FLOW_MATCHING
    assert usable(model, max_steps=334) == ("FlowMatchEulerDiscrete",)
    flux = folder("FluxPipeline", FLOW, denoiser={"guidance_embeds": True})
    assert usable(flux, max_steps=500) == FLOW_MATCHING


BETAS = {"_class_name": "DDIMScheduler", "steps_offset": 1, "set_alpha_to_one": False}
SHIFTED = {"_class_name": FLOW, "shift": 3.0}


@pytest.mark.parametrize(
    ("config", "name", "steps"),
    [
        *((BETAS, name, 999) for name in NOISE_PREDICTING if name != "LCM"),
        (BETAS, "LCM", 50),
        (SHIFTED, "UniPCMultistep", 333),
        (SHIFTED, "FlowMatchEulerDiscrete", 500),
    ],
)
def test_a_sampler_takes_the_most_steps_that_it_is_offered_for(
    config: dict[str, Any], name: str, steps: int
) -> None:
    sampler = SchedulerFactory(config, trailing=False).build(name)
    sampler.set_timesteps(steps)
    latents = torch.zeros(1, 1, 1, 1)
    for timestep in sampler.timesteps:
        latents = sampler.step(torch.zeros_like(latents), timestep, latents).prev_sample

    assert latents.isfinite().all()


def test_a_sampler_that_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(StartupError, match="usable: FlowMatchEulerDiscrete") as caught:
        check_scheduler("DDIM", FLOW_MATCHING, FLOW)
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    with pytest.raises(StartupError, match="usable: DDIM"):
        check_scheduler(FLOW_MATCHING[0], NOISE_PREDICTING, "DDIMScheduler")


def test_an_administrator_may_allow_fewer_samplers_and_always_the_servers_own() -> None:
    assert allowed_schedulers(None, NOISE_PREDICTING, "DDIM") == NOISE_PREDICTING
    assert allowed_schedulers(("PNDM", "LCM"), NOISE_PREDICTING, "DDIM") == ("DDIM", "LCM", "PNDM")


def test_an_allowed_sampler_that_does_not_fit_is_refused_with_those_that_do() -> None:
    message = "--allow-schedulers: fast_ema, PNDM cannot sample .* usable: FlowMatchEulerDiscrete"
    with pytest.raises(StartupError, match=message) as caught:
        allowed_schedulers(
            ("fast_ema", "UniPCMultistep", "PNDM"), FLOW_MATCHING, "FlowMatchEulerDiscrete"
        )
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
