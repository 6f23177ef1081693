"""What an engine is told at its start; nothing heavy is imported, for the command line uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from imagegen.engines.hosted.settings import HostedSettings
from imagegen.engines.synthetic.rates import SyntheticRates

__all__ = [
    "CHOICES",
    "Demand",
    "DiffusersSettings",
    "EngineSettings",
    "HostedSettings",
    "StepCache",
    "SyntheticSettings",
]

CHOICES: Final = {
    "precision": ("BFloat16", "Float16", "Float32"),
    "attention": ("sdpa", "math", "flash", "efficient", "cudnn", "xformers", "flash-attn", "sage"),
    "compile": ("none", "regional"),
    "vae_tiling": ("auto", "on", "off"),
    "vae_slicing": ("auto", "on", "off"),
    "offload": ("none", "model", "sequential"),
}
"""Values of options of a diffusers pipeline that take one of a few."""


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
class StepCache:
    """Reuse of a step's work in the next ones.

    Attributes
    ----------
    kind
        ``first-block``: a step is skipped when the first block's output changed less than `value`
        (relative, above 0), a mean over the whole batch. ``taylorseer``: only every `value`-th step
        (whole, 2 or more) is computed, the ones between are extrapolated; whatever the batch.
    """

    kind: str
    value: float

    @classmethod
    def parse(cls, text: str) -> StepCache | None:
        """Read ``first-block:0.1``, ``taylorseer:3`` or ``none``.

        Raises
        ------
        ValueError
            With what is allowed.
        """
        if text == "none":
            return None
        kind, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if kind == "first-block" and 0 < value < 1:
            return cls(kind, value)
        if kind == "taylorseer" and value in range(2, 11):
            return cls(kind, value)
        raise ValueError(
            f"{text!r} must be none, first-block:THRESHOLD (above 0, below 1) or "
            "taylorseer:INTERVAL (2 to 10)"
        )

    @property
    def couples_neighbours(self) -> bool:
        """Whether a picture depends on the others of its batch."""
        return self.kind == "first-block"

    def __str__(self) -> str:
        """Give the text that :meth:`parse` reads."""
        return f"{self.kind}:{self.value:g}"


@dataclass(frozen=True)
class DiffusersSettings:
    """A diffusers pipeline in a local folder; docs/serving.md says what each option does."""

    model: Path
    precision: str = "BFloat16"
    scheduler: str | None = None
    """Class name of a diffusers scheduler without the suffix; None is the model's own."""
    allow_schedulers: tuple[str, ...] | None = None
    """Samplers that requests may choose besides `scheduler`; None are all that fit the model."""
    preset: str = "auto"
    digest: str | None = None
    attention: str = "sdpa"
    compile: str = "none"
    vae_tiling: str = "auto"
    vae_slicing: str = "auto"
    offload: str = "none"
    cache: StepCache | None = None
    cache_with_batching: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class SyntheticSettings:
    """The engine without a model."""

    rates: SyntheticRates = field(default_factory=SyntheticRates)


EngineSettings = DiffusersSettings | HostedSettings | SyntheticSettings
