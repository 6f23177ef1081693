"""Checks of a model folder that need no torch: what is not safe or not complete is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from imagegen.contract import StartupFailureCode
from imagegen.errors import StartupError

__all__ = ["PIPELINE_CLASSES", "ModelFolder", "check_folder"]

PIPELINE_CLASSES = (
    "FluxPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
)
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
_PICKLED = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
_WEIGHTLESS = ("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler", "feature_extractor")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed the checks."""

    path: Path
    pipeline_class: str
    scheduler_class: str


def _invalid(message: str) -> StartupError:
    return StartupError(StartupFailureCode.MODEL_INVALID, message)


def _read_index(path: Path) -> dict[str, object]:
    index_file = path / "model_index.json"
    if not path.is_dir():
        raise _invalid(f"model folder {path} does not exist; mount the model there")
    if not index_file.is_file():
        raise _invalid(f"{path} has no model_index.json; it must be a saved diffusers pipeline")
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _invalid(f"{index_file} cannot be read: {error}") from error
    if not isinstance(index, dict):
        raise _invalid(f"{index_file} must hold a JSON object")
    return index


def _check_component(path: Path, name: str, library: object) -> None:
    if library not in _LIBRARIES:
        raise _invalid(
            f"component {name} of model_index.json comes from {library!r}: code shipped with a "
            f"model is never run; allowed libraries: {', '.join(_LIBRARIES)}"
        )
    folder = path / name
    if not folder.is_dir():
        raise _invalid(f"folder {name} of the model is missing, model_index.json names it")
    if name in _WEIGHTLESS:
        return
    files = [entry.name for entry in folder.iterdir()]
    if any(file.endswith(".safetensors") for file in files):
        return
    pickled = sorted(file for file in files if file.endswith(_PICKLED))
    if pickled:
        raise _invalid(
            f"weights {name}/{pickled[0]} are pickled, which can run code when loaded; "
            "convert them to safetensors (save_pretrained with safe_serialization)"
        )
    raise _invalid(f"folder {name} of the model holds no .safetensors weights")


def check_folder(path: Path) -> ModelFolder:
    """Check that a folder is a complete, safe diffusers pipeline of a supported class.

    Parameters
    ----------
    path
        The folder that holds ``model_index.json``.

    Raises
    ------
    StartupError
        With code ``ModelInvalid``, naming what is wrong.
    """
    index = _read_index(path)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str) or pipeline_class not in PIPELINE_CLASSES:
        raise _invalid(
            f"pipeline class {pipeline_class!r} of model_index.json is not supported; "
            f"supported: {', '.join(PIPELINE_CLASSES)}"
        )
    code = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.py"))
    if code:
        raise _invalid(f"{code[0]}: code shipped with a model is never run; remove it")
    scheduler_class = None
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        library, class_name = (*entry, None, None)[:2]
        if class_name is None:  # an optional component that this model has not
            continue
        _check_component(path, name, library)
        if name == "scheduler":
            scheduler_class = class_name
    if not isinstance(scheduler_class, str):
        raise _invalid("model_index.json names no scheduler")
    return ModelFolder(path, pipeline_class, scheduler_class)
