"""Checks of a model folder that need no torch: what is not safe or not complete is refused."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from imagegen.contract import StartupFailureCode
from imagegen.engines.digest import folder_digest
from imagegen.errors import StartupError

__all__ = ["PIPELINE_CLASSES", "UPSCALE_CLASSES", "ModelFolder", "check_folder", "list_files"]

PIPELINE_CLASSES = (
    "FluxPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
)
"""Pipelines that make pictures from text."""

UPSCALE_CLASSES = ("StableDiffusionLatentUpscalePipeline", "StableDiffusionUpscalePipeline")
"""Pipelines that enlarge pictures."""

_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
_COMPONENT_CLASSES = (
    "AutoencoderKL",
    "CLIPFeatureExtractor",
    "CLIPImageProcessor",
    "CLIPImageProcessorPil",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "CLIPVisionModelWithProjection",
    "FluxTransformer2DModel",
    "SD3Transformer2DModel",
    "StableDiffusionSafetyChecker",
    "T5EncoderModel",
    "T5Tokenizer",
    "T5TokenizerFast",
    "UNet2DConditionModel",
)
_PICKLED = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
_WEIGHTLESS = ("tokenizer", "scheduler", "low_res_scheduler", "feature_extractor")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed the checks.

    `configs` holds the configuration of each component that has one, by the component's name.
    """

    path: Path
    pipeline_class: str
    scheduler_class: str
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str | None = None


def _invalid(message: str) -> StartupError:
    return StartupError(StartupFailureCode.MODEL_INVALID, message)


def list_files(folder: Path) -> list[str]:
    """List the files of a folder by their relative paths.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` for links that leave the folder, and all that is neither a file
        nor a folder.
    """
    if not folder.is_dir():
        raise _invalid(f"model folder {folder} does not exist; mount the model there")
    root = folder.resolve()
    files = []
    for directory, folders, names in os.walk(root, onerror=_unreadable):
        for name in [*folders, *names]:
            path = Path(directory, name)
            shown = path.relative_to(root).as_posix()
            if not shown.isprintable() or "\\" in shown:
                raise _invalid(f"the name {shown!a} has characters that no model needs")
            if path.is_symlink() and not _stays(path, root):
                raise _invalid(
                    f"{shown} is a link that leaves the model's folder, or a link to a folder; "
                    "copy what it points to"
                )
            if name in names:
                if not path.is_file():
                    raise _invalid(f"{shown} is not a regular file")
                files.append(shown)
    return files


def _unreadable(error: OSError) -> NoReturn:
    raise _invalid(f"{error.filename} cannot be read: {error.strerror}")


def _stays(link: Path, root: Path) -> bool:
    return link.is_file() and link.resolve().is_relative_to(root)


def _read_object(path: Path, shown: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid(f"{shown} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise _invalid(f"{shown} must hold a JSON object")
    return content


def _check_files(path: Path, files: list[str]) -> None:
    """Refuse what could run when it is loaded, and configurations that ask for it."""
    for name in sorted(files):
        if name.endswith(".py"):
            raise _invalid(f"{name}: code shipped with a model is never run; remove it")
        if name.endswith(_PICKLED):
            raise _invalid(
                f"weights {name} are pickled, which can run code when loaded; remove the file, and "
                "if there is no .safetensors beside it, convert it (save_pretrained does)"
            )
        if name.endswith("config.json") and "auto_map" in _read_object(path / name, name):
            raise _invalid(
                f"{name} asks for code shipped with the model (auto_map), which is never run; "
                "remove the entry"
            )
        if name.endswith(".safetensors.index.json"):
            _check_shards(path, name, files)


def _check_shards(path: Path, name: str, files: list[str]) -> None:
    weights = _read_object(path / name, name).get("weight_map")
    shards = set(weights.values()) if isinstance(weights, dict) else {None}
    beside = name.rpartition("/")[0]
    for shard in shards:
        if not isinstance(shard, str) or f"{beside}/{shard}" not in files:
            raise _invalid(f"{name} names {shard!a}, which is no file beside it")


def _components(path: Path, index: dict[str, Any]) -> dict[str, str]:
    """Give the checked components by name, each with its class."""
    components = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        library, class_name = (*entry, None, None)[:2]
        if class_name is not None:  # an optional component may be left out so
            components[name] = _check_component(path, name, library, class_name)
    return components


def _check_component(path: Path, name: str, library: object, class_name: object) -> str:
    if library not in _LIBRARIES:
        raise _invalid(
            f"component {name} of model_index.json comes from {library!r}: code shipped with a "
            f"model is never run; allowed libraries: {', '.join(_LIBRARIES)}"
        )
    if not isinstance(class_name, str) or not (
        class_name in _COMPONENT_CLASSES or class_name.endswith("Scheduler")
    ):
        raise _invalid(
            f"component {name} of model_index.json is a {class_name!r}; "
            f"known: {', '.join(_COMPONENT_CLASSES)} and schedulers"
        )
    folder = path / name
    if not folder.is_dir():
        raise _invalid(f"folder {name} of the model is missing, model_index.json names it")
    safe = any(entry.name.endswith(".safetensors") for entry in folder.iterdir())
    if not safe and not name.startswith(_WEIGHTLESS):
        raise _invalid(f"folder {name} of the model holds no .safetensors weights")
    return class_name


def _check_digest(path: Path, files: list[str], wanted: str) -> None:
    try:
        found = folder_digest(path, files)
    except OSError as error:
        _unreadable(error)
    if found != wanted:
        raise _invalid(
            f"the model in {path} has the digest {found}, but --digest is {wanted}: it is not the "
            "model that was pinned; 'imagegen digest DIR' prints the digest of a folder"
        )


def check_folder(path: Path, *, digest: str | None = None) -> ModelFolder:
    """Check that a folder is a complete, safe diffusers pipeline of a supported class.

    Parameters
    ----------
    path
        The folder that holds ``model_index.json``.
    digest
        What :func:`imagegen.engines.digest.folder_digest` must give for it.

    Raises
    ------
    StartupError
        With code ``ModelInvalid``, naming what is wrong.
    """
    files = list_files(path)
    if "model_index.json" not in files:
        raise _invalid(f"{path} has no model_index.json; it must be a saved diffusers pipeline")
    index = _read_object(path / "model_index.json", "model_index.json")
    pipeline_class = index.get("_class_name")
    supported = (*PIPELINE_CLASSES, *UPSCALE_CLASSES)
    if not isinstance(pipeline_class, str) or pipeline_class not in supported:
        raise _invalid(
            f"pipeline class {pipeline_class!r} of model_index.json is not supported; "
            f"supported: {', '.join(supported)}"
        )
    _check_files(path, files)
    components = _components(path, index)
    if "scheduler" not in components:
        raise _invalid("model_index.json names no scheduler")
    configs = {
        name: _read_object(path / file, file)
        for name in components
        for file in (f"{name}/config.json", f"{name}/scheduler_config.json")
        if file in files
    }
    if digest is not None:  # last, because it reads gigabytes
        _check_digest(path, files, digest)
    return ModelFolder(path, pipeline_class, components["scheduler"], configs, digest)
