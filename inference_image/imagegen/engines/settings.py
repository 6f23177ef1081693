"""What an engine is told at its start; nothing heavy is imported, for the command line uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Demand", "DiffusersSettings", "EngineSettings"]


@dataclass(frozen=True)
class Demand:
    """What requests will get from the engine, and the most that they may ask for."""

    width: int
    height: int
    steps: int
    guidance_scale: float
    max_steps: int
    max_batch_size: int


@dataclass(frozen=True)
class DiffusersSettings:
    """A diffusers pipeline in a local folder."""

    model: Path
    precision: str = "BFloat16"
    scheduler: str | None = None
    """Class name of a diffusers scheduler without the suffix; None is the model's own."""


EngineSettings = DiffusersSettings
