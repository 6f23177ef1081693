"""The interface of an engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from imagegen.contract import OomPhase
from imagegen.errors import RequestRefusedError

__all__ = [
    "Batch",
    "Engine",
    "Generated",
    "GenerationSettings",
    "Images",
    "Picture",
    "StageClock",
    "Task",
]

Images = NDArray[np.float32]
"""Pictures: shape (count, height, width, 3), values in [0, 1]."""

Picture = NDArray[np.float32]
"""One picture: shape (height, width, 3), values in [0, 1]."""


class Task(StrEnum):
    """What an engine is for."""

    GENERATE = "generate"
    UPSCALE = "upscale"


@dataclass(frozen=True)
class GenerationSettings:
    """What all pictures of a batch share; width and height are those of the result, in pixels."""

    width: int
    height: int
    steps: int
    guidance_scale: float
    tiled_decoding: bool = False
    """Decode in overlapping tiles: less memory, slightly other pixels (`Engine.can_tile`)."""
    scheduler: str | None = None
    """One of `Engine.schedulers`; None is the server's own."""


@dataclass(frozen=True)
class Batch:
    """Pictures to be made in one call; every picture has its own prompts and seed.

    They may belong to several requests. Negative prompts are there for all of them or for none;
    left out, there are none. An engine whose task is to upscale needs a source for each.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: GenerationSettings
    negative_prompts: tuple[str | None, ...] = ()
    sources: tuple[Picture, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Refuse lists that do not belong together."""
        count = len(self.prompts)
        if not self.negative_prompts:
            object.__setattr__(self, "negative_prompts", (None,) * count)
        if not count or count != len(self.seeds) or count != len(self.negative_prompts):
            raise ValueError("a batch needs at least one prompt, and as many of all else")
        if len({text is None for text in self.negative_prompts}) > 1:
            raise ValueError("negative prompts are there for all pictures of a batch or for none")
        if self.sources and len(self.sources) != count:
            raise ValueError("sources are there for all pictures of a batch or for none")

    def __len__(self) -> int:
        """Give the number of pictures."""
        return len(self.prompts)

    def halves(self) -> tuple[Batch, Batch]:
        """Split in two, the first half being the larger one of an odd batch."""
        middle = (len(self) + 1) // 2
        return self._part(slice(None, middle)), self._part(slice(middle, None))

    def _part(self, part: slice) -> Batch:
        return Batch(
            self.prompts[part],
            self.seeds[part],
            self.settings,
            self.negative_prompts[part],
            self.sources[part],
        )


class StageClock:
    """Measures the stages and steps of one generation.

    Times are taken where the work is done, so that measuring makes nobody wait: on a GPU a stamp is
    an event in its stream.

    Parameters
    ----------
    stamp
        Marks the present moment.
    seconds_between
        Gives the time between two stamps, once the work that was given before them is done.
    """

    def __init__(
        self,
        stamp: Callable[[], Any] = time.perf_counter,
        seconds_between: Callable[[Any, Any], float] = lambda first, second: second - first,
    ) -> None:
        self._stamp = stamp
        self._between = seconds_between
        self._began = [(OomPhase.ENCODE, stamp())]
        self._steps: list[Any] = []

    @property
    def stage(self) -> OomPhase:
        """The stage that work is given for."""
        return self._began[-1][0]

    def enter(self, stage: OomPhase) -> None:
        """End the running stage and begin `stage`; does nothing when that one runs already."""
        if stage != self.stage:
            self._began.append((stage, self._stamp()))

    def step_ended(self) -> None:
        """Note that a denoising step has ended."""
        self._steps.append(self._stamp())

    def finish(self) -> tuple[dict[str, float], list[float]]:
        """End the last stage.

        Returns
        -------
        tuple
            Seconds by stage, and of every step.
        """
        ends = [*(began for _, began in self._began[1:]), self._stamp()]
        stages: dict[str, float] = {}
        for (stage, began), end in zip(self._began, ends, strict=True):
            stages[stage] = stages.get(stage, 0.0) + self._between(began, end)
        first = next((began for stage, began in self._began if stage == OomPhase.DENOISE), None)
        marks = [] if first is None else [first, *self._steps]
        return stages, [self._between(*pair) for pair in pairwise(marks)]


@dataclass(frozen=True)
class Generated:
    """Pictures and what they took: seconds per stage and per denoising step of the batch."""

    images: Images
    stages: dict[str, float]
    steps: Sequence[float]
    refused: Mapping[int, RequestRefusedError] = field(default_factory=dict)
    """Why some were not made, by their place in the batch; what `images` holds there is nothing."""
    shares: Sequence[float] = ()
    """Each picture's part of the busy time, on any scale; left out, all parts are the same."""


class Engine(ABC):
    """Makes pictures. One thread calls :meth:`generate`, one batch at a time."""

    device: str
    """``cpu``, ``cuda:0``, ``hosted`` or ``synthetic``: the label of the busy-time counter."""

    size_multiple: int
    """Width and height must be multiples of this many pixels."""

    max_side: int
    """Longest side in pixels that the architecture can make."""

    takes_negative_prompt: bool
    """Whether a negative prompt has an effect."""

    schedulers: tuple[str, ...]
    """Samplers that a request may ask for; empty if it cannot choose."""

    can_tile: bool
    """Whether `GenerationSettings.tiled_decoding` has an effect."""

    max_prompt_tokens: int | None
    """Tokens of a prompt that the model reads, as :meth:`count_tokens` counts; None if unknown."""

    task: ClassVar[Task] = Task.GENERATE

    scale: int = 1
    """How many times larger than its source each side of a picture is; 1 without a source."""

    max_steps: int | None = None
    """Most steps that make sense for the model, where that is less than any limit."""

    guidance_range: tuple[float, float] | None = None
    """Least and greatest guidance scale that makes sense for the model; None if any does."""

    is_remote: bool = False
    """Whether pictures are made, and paid, elsewhere, one by one: none is made without need."""

    unused_fields: tuple[str, ...] = ()
    """Those of `seed`, `num_inference_steps` and `guidance_scale` that have no effect: requests
    with them are refused, and answers do not tell them."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the engine holds; called once, after the last call."""

    def example(self, prompt: str, count: int, settings: GenerationSettings) -> Batch:
        """Build a batch to warm up with."""
        sources: tuple[Picture, ...] = ()
        if self.task is Task.UPSCALE:
            rows, columns = settings.height // self.scale, settings.width // self.scale
            grey = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
            sources = (np.broadcast_to(grey, (rows, columns, 3)),) * count
        return Batch((prompt,) * count, tuple(range(count)), settings, sources=sources)

    def count_tokens(self, prompt: str) -> int | None:  # noqa: ARG002 - for those that can
        """Count the tokens of a prompt, those that mark its begin and end included.

        Never uses the device, and may be called from any thread.

        Returns
        -------
        int or None
            None if the engine does not know.
        """
        return None

    def busy_clock(self) -> float:
        """Give the time in seconds by which busy time is measured, failed attempts included.

        The worker counts by how much it grew during a call. It is the wall clock, unless the work
        is paid by other measures than the time that a device is held.
        """
        return time.perf_counter()

    @abstractmethod
    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Make the pictures of a batch.

        The same batch gives the same pictures on the same device and software. A picture is given
        by its prompt, seed and settings, the size of its batch and its place in it: in a batch of
        another size it may differ by rounding; with some models also at another place of a batch of
        the same size, because the last rows of a matrix are computed in another way. What its
        neighbours show makes no difference, but for a cache that decides for a whole batch.

        Parameters
        ----------
        batch
            Prompts, seeds and settings, of one request or of several.
        should_stop
            Asked at every step boundary; True gives the batch up.

        Raises
        ------
        DeviceMemoryError
            If memory ran out. All memory of the attempt has been given back.
        GenerationCancelledError
            If `should_stop` said so.
        RequestRefusedError
            If none of the pictures can be made, for a reason that its text tells. What concerns
            single pictures, such as a hosted API's refusal of a prompt, is told in `refused`.
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
