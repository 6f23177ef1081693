from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagegen import contract
from imagegen.contract import OomPhase
from imagegen.engines.base import Batch, Generated, GenerationSettings
from imagegen.engines.settings import SyntheticSettings
from imagegen.engines.synthetic.engine import SyntheticEngine
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.server.costs import CostModel
from imagegen.server.metrics import ServerMetrics
from imagegen.server.settings import Defaults, Limits, ServeSettings
from imagegen.server.warmup import warm_up
from tests.unit.imagegen.conftest import settings_for

COMPILE_SECONDS = 90.0
STEP_SECONDS = 0.1


class CompilingEngine(SyntheticEngine):
    """Compiles whenever a shape is first made, by a clock of its own."""

    def __init__(self) -> None:
        super().__init__(SyntheticRates())
        self.now = 0.0
        self.made: list[tuple[int, int]] = []

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        assert not should_stop()
        steps = batch.settings.steps
        compiling = 0.0 if any(count == len(batch) for count, _ in self.made) else COMPILE_SECONDS
        self.made.append((len(batch), steps))
        denoising = compiling + STEP_SECONDS * steps * len(batch)
        self.now += denoising
        pixels = np.random.default_rng(0).random((len(batch), 32, 32, 3), dtype=np.float32)
        return Generated(pixels, {OomPhase.DENOISE: denoising}, [])


def wanted(folder: Path, most: int) -> ServeSettings:
    return settings_for(
        folder,
        engine=SyntheticSettings(),
        defaults=Defaults(steps=20, guidance_scale=5.0, width=32, height=32),
        limits=Limits(max_steps=40, max_batch_size=most, max_images_per_request=6, max_pixels=9216),
    )


@pytest.mark.parametrize("most", [1, 4])
def test_what_compiling_takes_is_not_taken_for_the_cost_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    engine, costs = CompilingEngine(), CostModel()
    monkeypatch.setattr(time, "perf_counter", lambda: engine.now)
    settings = wanted(tmp_path, most)
    metrics = ServerMetrics(model="kites", revision="0", edges=contract.latency_edges([1.0]))

    warm_up(engine, settings, metrics=metrics, costs=costs)

    picture = GenerationSettings(32, 32, 20, 5.0)
    assert costs.estimate(picture, 1) == pytest.approx(20 * STEP_SECONDS)
    assert {count for count, _ in engine.made} == {1, most}
