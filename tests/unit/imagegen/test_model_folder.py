from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imagegen.contract import StartupFailureCode
from imagegen.engines.digest import folder_digest
from imagegen.engines.folder import check_folder, list_files
from imagegen.errors import StartupError


@pytest.fixture
def copy(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("sd"), tmp_path / "model"))


def change_index(folder: Path, **entries: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def refusal(folder: Path, *, digest: str | None = None) -> str:
    with pytest.raises(StartupError) as caught:
        check_folder(folder, digest=digest)
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


def test_pickled_files_are_refused_also_beside_safe_ones(copy: Path) -> None:
    (copy / "vae" / "extra.pt").touch()
    assert "vae/extra.pt are pickled" in refusal(copy)


@pytest.mark.parametrize("file", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_a_configuration_that_asks_for_code_is_refused(copy: Path, file: str) -> None:
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**content, "auto_map": {"AutoModel": "a.B"}}))
    assert f"{file} asks for code" in refusal(copy)


def test_a_component_of_an_unknown_class_is_refused(copy: Path) -> None:
    change_index(copy, text_encoder=["transformers", "AutoModel"])
    assert "text_encoder of model_index.json is a 'AutoModel'; known: AutoencoderKL" in refusal(
        copy
    )


@pytest.mark.parametrize("shard", ["../vae/diffusion_pytorch_model.safetensors", "gone", 7])
def test_an_index_of_weights_may_only_name_files_beside_it(copy: Path, shard: object) -> None:
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": shard}}))
    assert "which is no file beside it" in refusal(copy)


def test_links_may_not_leave_the_folder(copy: Path) -> None:
    config = copy / "vae" / "config.json"
    outside = config.rename(copy.parent / "config.json")
    config.symlink_to(outside)
    assert "vae/config.json is a link that leaves the model's folder" in refusal(copy)


def test_links_to_folders_and_dangling_ones_are_refused(copy: Path) -> None:
    link = copy / "again"
    link.symlink_to(copy / "vae")
    assert "again is a link" in refusal(copy)
    link.unlink()
    link.symlink_to(copy / "nowhere")
    assert "again is a link" in refusal(copy)


def test_a_link_within_the_folder_is_a_file(copy: Path) -> None:
    config = copy / "vae" / "config.json"
    config.rename(copy / "vae.json")
    config.symlink_to("../vae.json")
    assert check_folder(copy).configs["vae"]["_class_name"] == "AutoencoderKL"


def test_what_is_no_file_is_refused(copy: Path) -> None:
    os.mkfifo(copy / "unet" / "pipe")
    assert "unet/pipe is not a regular file" in refusal(copy)


def test_odd_names_are_refused(copy: Path) -> None:
    (copy / "two\nlines").touch()
    assert "has characters that no model needs" in refusal(copy)


def test_the_digest_is_what_the_standard_tools_say(copy: Path) -> None:
    (copy / "Aé b.txt").write_text("names are sorted by their bytes")
    (copy / "unet" / "link.txt").symlink_to("../Aé b.txt")
    command = (
        r"find -L . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    )
    expected = subprocess.run(
        ["sh", "-c", command], cwd=copy, check=True, capture_output=True, text=True
    ).stdout.split()[0]

    assert folder_digest(copy, list_files(copy)) == f"sha256:{expected}"
    assert check_folder(copy, digest=f"sha256:{expected}").digest == f"sha256:{expected}"


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_another_model_than_the_pinned_one_is_refused(copy: Path, change: str) -> None:
    pinned = folder_digest(copy, list_files(copy))
    config = copy / "vae" / "config.json"
    if change == "content":
        config.write_text(config.read_text() + " ")
    elif change == "name":
        (copy / "tokenizer" / "tokenizer.json").rename(copy / "tokenizer" / "tokeniser.json")
    else:
        (copy / "README.md").touch()

    message = refusal(copy, digest=pinned)
    assert "is not the model that was pinned" in message
    assert pinned in message
    assert folder_digest(copy, list_files(copy)) in message


def test_a_component_of_a_foreign_library_is_refused(copy: Path) -> None:
    change_index(copy, unet=["my_unet", "MyUNet"])
    assert "component unet" in refusal(copy)


@pytest.mark.parametrize("name", ["WanPipeline", ["pipeline", "MyPipeline"], None])
def test_an_unsupported_pipeline_is_refused_with_the_supported_ones(
    copy: Path, name: object
) -> None:
    change_index(copy, _class_name=name)
    assert "supported: FluxPipeline" in refusal(copy)
