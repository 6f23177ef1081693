"""The interface of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imagegen.contract import OomPhase

__all__ = ["Batch", "Engine", "Generated", "GenerationSettings", "Images", "StageClock"]

Images = NDArray[np.float32]
"""Pictures: shape (count, height, width, 3), values in [0, 1]."""


@dataclass(frozen=True)
class GenerationSettings:
    """What all pictures of a batch share."""

    width: int
    height: int
    steps: int
    guidance_scale: float
    negative_prompt: str | None = None


@dataclass(frozen=True)
class Batch:
    """Pictures to be made in one call; every picture has its own prompt and seed."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: GenerationSettings

    def __post_init__(self) -> None:
        """Refuse prompts without seeds."""
        if not self.prompts or len(self.prompts) != len(self.seeds):
            raise ValueError("a batch needs at least one prompt, and as many seeds as prompts")

    def __len__(self) -> int:
        """Give the number of pictures."""
        return len(self.prompts)

    def halves(self) -> tuple[Batch, Batch]:
        """Split in two, the first half being the larger one of an odd batch."""
        middle = (len(self) + 1) // 2
        return (
            Batch(self.prompts[:middle], self.seeds[:middle], self.settings),
            Batch(self.prompts[middle:], self.seeds[middle:], self.settings),
        )


@dataclass
class StageClock:
    """Measures the stages and steps of one generation.

    Parameters
    ----------
    now
        Gives the time in seconds; work that the device was given has ended when it returns.
    """

    now: Callable[[], float]
    stage: OomPhase = OomPhase.ENCODE
    stages: dict[str, float] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the clock."""
        self._stage_began = self._step_began = self.now()

    def enter(self, stage: OomPhase) -> None:
        """End the running stage and begin `stage`; does nothing when that one runs already."""
        if stage == self.stage:
            return
        now = self.now()
        self._close(now)
        self.stage = stage
        self._step_began = now

    def step_ended(self) -> None:
        """Note that a denoising step has ended."""
        now = self.now()
        self.steps.append(now - self._step_began)
        self._step_began = now

    def finish(self) -> None:
        """End the last stage."""
        self._close(self.now())

    def _close(self, now: float) -> None:
        self.stages[self.stage] = self.stages.get(self.stage, 0.0) + now - self._stage_began
        self._stage_began = now


@dataclass(frozen=True)
class Generated:
    """Pictures and what they took: seconds per stage and per denoising step of the batch."""

    images: Images
    stages: dict[str, float]
    steps: Sequence[float]


class Engine(ABC):
    """Makes pictures. Only one thread calls it, one batch at a time."""

    device: str
    """``cpu`` or ``cuda:0``: the label of the busy-time counter."""

    size_multiple: int
    """Width and height must be multiples of this many pixels."""

    max_side: int
    """Longest side in pixels that the architecture can make."""

    takes_negative_prompt: bool
    """Whether a negative prompt has an effect."""

    @abstractmethod
    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Make the pictures of a batch.

        The same batch gives the same pictures on the same device and software; the same prompt and
        seed in a batch of another size may differ by rounding.

        Parameters
        ----------
        batch
            Prompts, seeds and settings.
        should_stop
            Asked at every step boundary; True gives the batch up.

        Raises
        ------
        DeviceMemoryError
            If memory ran out. All memory of the attempt has been given back.
        GenerationCancelledError
            If `should_stop` said so.
        EngineBrokenError
            If the device needs a new process.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Describe what pictures depend on: pipeline class, dtype, scheduler, library versions."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Device memory in bytes by kind of :data:`imagegen.contract.VRAM_KINDS`; empty on a CPU.

        Called from the metrics thread.
        """
