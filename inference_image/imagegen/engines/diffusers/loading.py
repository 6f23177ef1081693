"""From a checked folder to a pipeline on its device."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from imagegen.contract import StartupFailureCode
from imagegen.engines.diffusers.engine import DiffusersEngine, first_line, is_out_of_memory
from imagegen.engines.diffusers.schedulers import build_scheduler, check_scheduler
from imagegen.engines.folder import ModelFolder
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.engines.threads import cpu_threads
from imagegen.errors import StartupError

__all__ = ["DTYPES", "load_diffusers"]

DTYPES = {
    "BFloat16": torch.bfloat16,
    "Float16": torch.float16,
    "Float32": torch.float32,
}
"""Values of ``--precision``."""

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()


def load_diffusers(
    folder: ModelFolder,
    settings: DiffusersSettings,
    demand: Demand,
    cls: type[DiffusersEngine] = DiffusersEngine,
) -> DiffusersEngine:
    """Load a checked folder on the best device and put the wanted sampler in.

    Parameters
    ----------
    folder
        A folder that passed :func:`imagegen.engines.folder.check_folder`.
    settings
        Its options.
    demand
        What the server will ask of it.
    cls
        Class of the engine.

    Raises
    ------
    StartupError
        With code ``ModelInvalid`` when the folder cannot be loaded, or the settings or the demand
        do not fit it; ``CudaOOM`` or ``HostOOM`` when memory ran out.
    """
    scheduler = settings.scheduler or folder.scheduler_class.removesuffix("Scheduler")
    check_scheduler(scheduler, folder.scheduler_class)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(cpu_threads())
    pipeline = _load_pipeline(folder, settings.precision, device)
    pipeline.scheduler = build_scheduler(scheduler, pipeline.scheduler.config)
    most = pipeline.scheduler.config.get("original_inference_steps")
    if most is not None and demand.max_steps > most:
        raise StartupError(
            StartupFailureCode.MODEL_INVALID,
            f"scheduler {scheduler} takes at most {most} steps, but --max-steps is "
            f"{demand.max_steps}",
        )
    return cls(pipeline, precision=settings.precision)


def _load_pipeline(folder: ModelFolder, precision: str, device: str) -> Any:
    try:
        return diffusers.DiffusionPipeline.from_pretrained(
            folder.path,
            dtype=DTYPES[precision],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        ).to(device)
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
