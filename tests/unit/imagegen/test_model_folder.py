from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imagegen.contract import StartupFailureCode
from imagegen.engines.diffusers.schedulers import FLOW_MATCHING, check_scheduler
from imagegen.engines.folder import check_folder
from imagegen.errors import StartupError


@pytest.fixture
def copy(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("sd"), tmp_path / "model"))


def change_index(folder: Path, **entries: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def refusal(folder: Path) -> str:
    with pytest.raises(StartupError) as caught:
        check_folder(folder)
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    return caught.value.message


def test_a_saved_pipeline_is_taken(copy: Path) -> None:
    folder = check_folder(copy)
    assert folder.pipeline_class == "StableDiffusionPipeline"
    assert folder.scheduler_class == "DDIMScheduler"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'} does not exist" in refusal(tmp_path / "nowhere")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    assert "no model_index.json" in refusal(tmp_path)


def test_a_broken_index_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text("{")
    assert "cannot be read" in refusal(copy)


def test_pickled_weights_are_refused_by_name(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert "unet/diffusion_pytorch_model.bin are pickled" in refusal(copy)


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "vae of the model holds no .safetensors" in refusal(copy)


def test_a_missing_component_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "text_encoder")
    assert "text_encoder of the model is missing" in refusal(copy)


def test_shipped_code_is_never_run(copy: Path) -> None:
    (copy / "unet" / "my_unet.py").write_text("raise SystemExit('run')")
    assert "unet/my_unet.py: code shipped with a model" in refusal(copy)


def test_a_component_of_a_foreign_library_is_refused(copy: Path) -> None:
    change_index(copy, unet=["my_unet", "MyUNet"])
    assert "component unet" in refusal(copy)


@pytest.mark.parametrize("name", ["WanPipeline", ["pipeline", "MyPipeline"], None])
def test_an_unsupported_pipeline_is_refused_with_the_supported_ones(
    copy: Path, name: object
) -> None:
    change_index(copy, _class_name=name)
    assert "supported: FluxPipeline" in refusal(copy)


def test_a_sampler_that_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(StartupError, match="usable: FlowMatchEulerDiscrete") as caught:
        check_scheduler("DDIM", "FlowMatchEulerDiscreteScheduler")
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    with pytest.raises(StartupError, match="usable: DDIM"):
        check_scheduler(FLOW_MATCHING[0], "DDIMScheduler")
