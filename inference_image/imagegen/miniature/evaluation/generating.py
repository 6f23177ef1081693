"""Making pictures with a model at a setting, as the server does it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from imagegen.engines.base import Batch, GenerationSettings
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.diffusers.loading import load_diffusers
from imagegen.engines.diffusers.schedulers import check_scheduler, usable_schedulers
from imagegen.engines.digest import folder_digest
from imagegen.engines.folder import check_folder, list_files
from imagegen.engines.presets import preset_for
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.miniature.evaluation.cases import Case
from imagegen.miniature.evaluation.memory import peak_memory, resident_bytes
from imagegen.miniature.scenes import HEIGHT, WIDTH

__all__ = ["MAX_STEPS", "Made", "Model", "Setting"]

MAX_STEPS = 50

_CARD = "README.md"

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Setting:
    """How pictures are sampled; the scheduler is a diffusers class name without the suffix."""

    steps: int
    guidance_scale: float
    scheduler: str
    precision: str = "Float32"
    batch_size: int = 1


@dataclass(frozen=True)
class Made:
    """Pictures and what they took.

    Attributes
    ----------
    pictures
        In the order of the cases.
    seconds, processor_seconds
        Per picture: of the clock, and of all threads of the process.
    peak_bytes
        The most memory that loading did not find in use; None where the system does not tell.
    """

    pictures: list[Picture]
    seconds: float
    processor_seconds: float
    peak_bytes: int | None


class Model:
    """A model folder; it is loaded for the precision that a setting asks for.

    Parameters
    ----------
    path
        A folder that diffusers saved.

    Raises
    ------
    imagegen.errors.StartupError
        If it is none, or cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = check_folder(path)
        self._preset = preset_for(self._folder)
        self._loaded: tuple[str, DiffusersEngine] | None = None
        self._before: int | None = None
        self.name = path.resolve().name

    @property
    def digest(self) -> str:
        """Give what pins the model's files but its card, which tells what was measured."""
        files = [file for file in list_files(self.path) if file != _CARD]
        return folder_digest(self.path, files)

    @property
    def default(self) -> Setting:
        """What the model's files suggest."""
        own = self._folder.scheduler_class.removesuffix("Scheduler")
        return Setting(self._preset.steps, self._preset.guidance_scale, own)

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Name the samplers that the model can be sampled with."""
        return self.engine("Float32").schedulers

    def check(self, setting: Setting) -> None:
        """Refuse a setting that the model cannot be sampled with.

        Raises
        ------
        imagegen.errors.StartupError
            With code ``ModelInvalid`` and the samplers that are usable.
        """
        own = self._folder.scheduler_class
        usable = usable_schedulers(self._folder, self._preset, max_steps=setting.steps)
        check_scheduler(setting.scheduler, usable, own)

    def engine(self, precision: str) -> DiffusersEngine:
        """Load the model, unless it is loaded in that precision already."""
        if self._loaded is None or self._loaded[0] != precision:
            self._loaded = None
            self._before = resident_bytes()
            demand = Demand(
                WIDTH, HEIGHT, self._preset.steps, self._preset.guidance_scale, MAX_STEPS, 8
            )
            settings = DiffusersSettings(self._folder.path, precision=precision)
            engine = load_diffusers(self._folder, settings, demand)
            self._loaded = (precision, engine)
            _generate(engine, [("warm-up", 0)], Setting(1, 1.0, engine.schedulers[0], precision))
        return self._loaded[1]

    def make(self, cases: Sequence[Case], setting: Setting) -> Made:
        """Make a picture of every case, in batches of the setting's size; the last may be smaller.

        Raises
        ------
        ValueError
            For a scheduler that the model cannot be sampled with.
        """
        engine = self.engine(setting.precision)
        wanted = [(case.prompt, case.seed) for case in cases]
        with peak_memory(engine.device) as peak:
            started, processor = time.perf_counter(), time.process_time()
            pictures = _generate(engine, wanted, setting)
            seconds = time.perf_counter() - started
            processor_seconds = time.process_time() - processor
        before = self._before if engine.device == "cpu" else 0
        beyond = None if peak.bytes is None or before is None else peak.bytes - before
        return Made(pictures, seconds / len(cases), processor_seconds / len(cases), beyond)

    def reconstruct(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Send pictures through the autoencoder and back: no denoiser can make better ones."""
        vae = AutoencoderKL.from_pretrained(self.path / "vae", local_files_only=True)
        vae.float().eval()
        with torch.inference_mode():
            samples = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
            coded = vae.encode(samples / 127.5 - 1).latent_dist.mode()
            shown = vae.decode(coded).sample.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
        return list(np.rint((shown + 1) * 127.5).astype(np.uint8))

    def alone(self, cases: Sequence[Case], setting: Setting) -> list[Picture]:
        """Make the pictures of the cases one by one, whatever the setting's batch size."""
        wanted = [(case.prompt, case.seed) for case in cases]
        engine = self.engine(setting.precision)
        return _generate(engine, wanted, replace(setting, batch_size=1))


def _generate(
    engine: DiffusersEngine, wanted: Sequence[tuple[str, int]], setting: Setting
) -> list[Picture]:
    settings = GenerationSettings(
        WIDTH, HEIGHT, setting.steps, setting.guidance_scale, scheduler=setting.scheduler
    )
    pictures: list[Picture] = []
    for at in range(0, len(wanted), setting.batch_size):
        part = wanted[at : at + setting.batch_size]
        batch = Batch(
            tuple(prompt for prompt, _ in part), tuple(seed for _, seed in part), settings
        )
        images = engine.generate(batch, should_stop=lambda: False).images
        pictures.extend(np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8))
    return pictures
