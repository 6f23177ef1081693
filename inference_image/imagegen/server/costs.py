"""What a batch is going to cost, learned from what batches cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagegen.contract import SIZE_CLASSES, OomPhase, size_class
from imagegen.engines.base import GenerationSettings

__all__ = ["CostModel"]

_WEIGHT = 0.2
"""Weight of a new observation once there are several; the mean of all until then."""


@dataclass
class _Rates:
    """Smoothed costs of one size class."""

    per_pixel: float = 0.0
    per_pixel_step: float = 0.0
    seen: int = 0

    def observe(self, per_pixel: float, per_pixel_step: float) -> None:
        self.seen += 1
        weight = max(_WEIGHT, 1 / self.seen)
        self.per_pixel += weight * (per_pixel - self.per_pixel)
        self.per_pixel_step += weight * (per_pixel_step - self.per_pixel_step)


class CostModel:
    """Estimates seconds of the engine for pictures of a size and a number of steps.

    A picture costs so much per pixel (reading the prompt, decoding) and so much per pixel and
    denoising step. Both are smoothed per size class, because the cost of a pixel grows with the
    size; a class that was never seen is taken to be like its nearest neighbour. What a picture
    costs is its share of the batches of late: the gain of running pictures together is learned too.
    """

    def __init__(self) -> None:
        self._rates: dict[str, _Rates] = {}

    def observe(
        self,
        settings: GenerationSettings,
        pictures: int,
        seconds: float,
        stages: Mapping[str, float],
    ) -> None:
        """Learn from a batch that was made.

        Parameters
        ----------
        settings
            Size and steps of its pictures.
        pictures
            How many there were.
        seconds
            Wall-clock time of the engine call.
        stages
            Seconds per stage; without the stage ``denoise`` all time is taken to be of that stage.
        """
        denoising = min(stages.get(OomPhase.DENOISE, seconds), seconds)
        pixels = settings.width * settings.height * pictures
        rates = self._rates.setdefault(size_class(settings.width, settings.height), _Rates())
        rates.observe((seconds - denoising) / pixels, denoising / (pixels * settings.steps))

    def estimate(self, settings: GenerationSettings, pictures: int) -> float:
        """Estimate the seconds of pictures of the same settings; 0 before anything was seen."""
        if not self._rates:
            return 0.0
        place = SIZE_CLASSES.index(size_class(settings.width, settings.height))
        # Of two neighbours the larger one, whose pixels cost more.
        nearest = min(
            self._rates,
            key=lambda name: (abs(SIZE_CLASSES.index(name) - place), -SIZE_CLASSES.index(name)),
        )
        rates = self._rates[nearest]
        per_pixel = rates.per_pixel + rates.per_pixel_step * settings.steps
        return per_pixel * settings.width * settings.height * pictures
