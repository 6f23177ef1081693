"""From a checked folder to a pipeline on its device."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from imagegen.contract import StartupFailureCode
from imagegen.engines.diffusers import tuning
from imagegen.engines.diffusers.determinism import make_deterministic
from imagegen.engines.diffusers.engine import DiffusersEngine, first_line, is_out_of_memory
from imagegen.engines.diffusers.schedulers import (
    allowed_schedulers,
    check_scheduler,
    usable_schedulers,
)
from imagegen.engines.diffusers.upscale import UpscaleEngine
from imagegen.engines.folder import UPSCALE_CLASSES, ModelFolder
from imagegen.engines.presets import check_demand, preset_for
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.engines.threads import cpu_threads
from imagegen.errors import StartupError

__all__ = ["load_diffusers"]

_DTYPES = {
    "BFloat16": torch.bfloat16,
    "Float16": torch.float16,
    "Float32": torch.float32,
}

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
# Their warnings show what an encoder does not read of a prompt, and prompts are shown nowhere.
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()


def load_diffusers(
    folder: ModelFolder,
    settings: DiffusersSettings,
    demand: Demand,
    cls: type[DiffusersEngine] | None = None,
) -> DiffusersEngine:
    """Load a checked folder on the best device, with the options that were declared.

    Parameters
    ----------
    folder
        A folder that passed :func:`imagegen.engines.folder.check_folder`.
    settings
        Its options.
    demand
        What the server will ask of it.
    cls
        Class of the engine; None is the one for the pipeline's task.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` when the folder cannot be loaded, or the settings or the demand
        do not fit it; ``CudaOOM`` or ``HostOOM`` when memory ran out.
    """
    if settings.deterministic:
        make_deterministic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tuning.check_options(settings, demand, pipeline_class=folder.pipeline_class, device=device)
    preset = preset_for(folder, settings.preset)
    check_demand(preset, demand)
    usable = usable_schedulers(folder, preset, max_steps=preset.most_steps(demand))
    scheduler = settings.scheduler or folder.scheduler_class.removesuffix("Scheduler")
    check_scheduler(scheduler, usable, folder.scheduler_class)
    allowed = allowed_schedulers(settings.allow_schedulers, usable, scheduler)
    torch.set_num_threads(cpu_threads())
    pipeline = _load_pipeline(folder, settings, device)
    usual = UpscaleEngine if folder.pipeline_class in UPSCALE_CLASSES else DiffusersEngine
    return (cls or usual)(
        pipeline,
        settings=settings,
        preset=preset,
        scheduler=scheduler,
        schedulers=allowed,
        device=torch.device(device),
    )


def _load_pipeline(folder: ModelFolder, settings: DiffusersSettings, device: str) -> Any:
    # It blackens pictures that users asked for, and they would be taken for the server's failures.
    left_out = {"safety_checker": None} if "safety_checker" in folder.configs else {}
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder.path,
            dtype=_DTYPES[settings.precision],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **left_out,
        )
        tuning.apply_attention(pipeline, settings.attention)
        if settings.compile == "regional":
            tuning.compile_blocks(pipeline)
        if settings.cache is not None:
            tuning.apply_cache(pipeline, settings.cache)
        return tuning.apply_offload(pipeline, settings.offload, device)
    except Exception as error:
        if is_out_of_memory(error):
            code = StartupFailureCode.HOST_OOM if device == "cpu" else StartupFailureCode.CUDA_OOM
            raise StartupError(
                code, "no memory to load the model's weights; use a bigger device"
            ) from error
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"the model in {folder.path} cannot be loaded: {first_line(error)}",
        ) from error
