"""The engine itself: declared latency, failures and pictures."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import NormalDist

import numpy as np

from imagegen.contract import OomPhase
from imagegen.engines.base import (
    Batch,
    Engine,
    Generated,
    GenerationSettings,
    Images,
    Picture,
    StageClock,
)
from imagegen.engines.synthetic.drawing import chance, draw, misspelled, quoted_texts
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.errors import DeviceMemoryError, GenerationCancelledError

__all__ = ["SyntheticEngine"]

_NOISE = 0.02
_BLANK = 0.5


class _WarmUp(Batch):
    """A batch that no trouble is injected into: a server under trial has to start."""


class SyntheticEngine(Engine):
    """Draws what prompts quote, and misbehaves as declared.

    Parameters
    ----------
    rates
        What is declared.
    pause
        Spends a number of seconds.
    """

    device = "synthetic"
    size_multiple = 8
    max_side = 4096
    takes_negative_prompt = False
    schedulers = ()
    max_prompt_tokens = None

    def __init__(self, rates: SyntheticRates, pause: Callable[[float], None] = time.sleep) -> None:
        self._rates = rates
        self._pause = pause
        self._random = random.Random(rates.seed)  # noqa: S311 - repeatable on purpose
        self.can_tile = rates.out_of_memory_phase == OomPhase.DECODE

    def example(self, prompt: str, count: int, settings: GenerationSettings) -> Batch:
        """Build a batch to warm up with."""
        return _WarmUp((prompt,) * count, tuple(range(count)), settings)

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        """Make the pictures of a batch; see the interface."""
        rates, spared = self._rates, isinstance(batch, _WarmUp)
        # All are drawn in any case: then one rate does not change what another one hits.
        spread, out_of_memory, failure = (self._random.random() for _ in range(3))
        troubles = [(self._random.random(), self._random.random()) for _ in range(len(batch))]
        phase = None
        if (not spared and out_of_memory < rates.out_of_memory_rate) or not self._fits(batch):
            phase = rates.out_of_memory_phase
        clock = StageClock()
        self._spend(batch, spread, clock, phase, should_stop)
        if not spared and failure < rates.failure_rate:
            raise RuntimeError("injected failure")
        clock.enter(OomPhase.DECODE)
        if phase == OomPhase.DECODE:
            raise DeviceMemoryError(phase)
        pictures = [self._picture(batch, index) for index in range(len(batch))]
        if not spared:
            pictures = [self._disturb(*pair) for pair in zip(pictures, troubles, strict=True)]
        images: Images = np.stack(pictures)
        return Generated(images, *clock.finish())

    def _fits(self, batch: Batch) -> bool:
        most = self._rates.fits_megapixels
        if most is None or (self.can_tile and batch.settings.tiled_decoding):
            return True
        return _megapixels(batch) <= most

    def _spend(
        self,
        batch: Batch,
        spread: float,
        clock: StageClock,
        phase: OomPhase | None,
        should_stop: Callable[[], bool],
    ) -> None:
        """Spend the time of a call up to the end of its last step, or to where memory runs out."""
        rates, steps = self._rates, batch.settings.steps
        factor = math.exp(rates.latency_log_deviation * _normal(spread))
        self._pause(factor * rates.base_seconds)
        if phase == OomPhase.ENCODE:
            raise DeviceMemoryError(phase)
        clock.enter(OomPhase.DENOISE)
        for step in range(steps):
            if phase == OomPhase.DENOISE and step >= steps // 2:
                raise DeviceMemoryError(phase)
            self._pause(factor * rates.seconds_per_megapixel_step * _megapixels(batch))
            clock.step_ended()
            if should_stop():
                raise GenerationCancelledError("given up at a step boundary")

    def _picture(self, batch: Batch, index: int) -> Picture:
        prompt, seed, settings = batch.prompts[index], batch.seeds[index], batch.settings
        texts = quoted_texts(prompt)
        if chance("misspelling", seed, prompt) < self._rates.misspelling_rate:
            texts = [misspelled(text, seed) for text in texts]
        picture = draw(prompt, texts, seed=seed, width=settings.width, height=settings.height)
        return np.roll(picture, self._rates.drift_pixels, axis=1)

    def _disturb(self, picture: Picture, trouble: tuple[float, float]) -> Picture:
        blank, instability = trouble
        if blank < self._rates.blank_rate:
            return np.full_like(picture, _BLANK)
        if instability < self._rates.instability_rate:
            noise = np.random.default_rng(int(instability * 2**53)).normal(0, _NOISE, picture.shape)
            return np.clip(picture + noise, 0, 1).astype(np.float32)
        return picture

    def describe(self) -> dict[str, str]:
        """Describe what pictures depend on: all that is declared."""
        declared = {name: str(value) for name, value in asdict(self._rates).items()}
        return {"pipeline": "synthetic", **declared}

    def memory(self) -> dict[str, int]:
        """Give nothing: there is no device."""
        return {}


def _megapixels(batch: Batch) -> float:
    return len(batch) * batch.settings.width * batch.settings.height / 1e6


def _normal(share: float) -> float:
    """Give the normal deviate that a share of all lies below."""
    return NormalDist().inv_cdf(min(max(share, 1e-12), 1 - 1e-12))
