from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen import contract
from imagegen.contract import OomPhase, StartupFailureCode
from imagegen.engines.base import Batch, Engine, Generated, GenerationSettings, Images
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.settings import DiffusersSettings, SyntheticSettings
from imagegen.engines.synthetic.engine import SyntheticEngine
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.errors import StartupError
from imagegen.server.costs import CostModel
from imagegen.server.metrics import ServerMetrics
from imagegen.server.settings import Defaults, Limits, ServeSettings
from imagegen.server.warmup import warm_up
from tests.unit.imagegen.conftest import ARCHITECTURES, load, running, settings_for

COMPILE_SECONDS = 90.0
STEP_SECONDS = 0.1


SLOPE = np.linspace(0, 1, 32, dtype=np.float32)


def drawn(count: int, columns: Images) -> Images:
    """Give pictures of 32x32 pixels whose rows are all the same."""
    return np.broadcast_to(columns[:, None], (count, 32, 32, 3)).copy()


def noise(seed: int) -> Images:
    return np.random.default_rng(seed).random((32, 32, 3), dtype=np.float32)


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
        return Generated(drawn(len(batch), SLOPE), {OomPhase.DENOISE: denoising}, [])


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


class BrokenEngine(SyntheticEngine):
    """Draws something else on the last picture of a batch, once it is given all steps."""

    def __init__(self, broken: Images, *, steps: int) -> None:
        super().__init__(SyntheticRates())
        self._broken, self._steps = broken, steps

    def generate(self, batch: Batch, *, should_stop: Callable[[], bool]) -> Generated:
        assert not should_stop()
        images = drawn(len(batch), SLOPE)
        if batch.settings.steps == self._steps:
            images[-1] = self._broken
        return Generated(images, {}, [])


BROKEN = {
    "non_finite": np.where(SLOPE[:, None] < 0.1, np.float32("nan"), SLOPE[:, None]),
    "flat": np.full((1, 1), 0.5, dtype=np.float32),
    "clipped": np.clip(4 * noise(0) - 1.5, 0, 1),
    "noise_like": noise(1),
}


@pytest.mark.parametrize("check", BROKEN)
def test_a_model_that_draws_broken_pictures_never_becomes_ready(tmp_path: Path, check: str) -> None:
    def broken(_: ServeSettings) -> Engine:
        return BrokenEngine(BROKEN[check], steps=20)

    with running(wanted(tmp_path, 4), broken) as server:
        failure = server.outcome[0]
        assert not server.server.state.ready
    assert isinstance(failure, StartupError)
    assert failure.code == StartupFailureCode.WARMUP_FAILED
    assert f"4 x 32x32 at 20 steps gave a broken image ({check}): " in failure.message


def test_what_few_steps_leave_undone_is_not_held_against_a_model(tmp_path: Path) -> None:
    with running(wanted(tmp_path, 4), lambda _: BrokenEngine(BROKEN["flat"], steps=2)) as server:
        assert server.server.state.ready


@pytest.mark.parametrize(("check", "ready"), [("flat", True), ("non_finite", False)])
def test_a_check_that_is_switched_off_is_not_made_but_numbers_are_always_needed(
    tmp_path: Path, check: str, *, ready: bool
) -> None:
    settings = replace(wanted(tmp_path, 1), watchdog=frozenset())
    with running(settings, lambda _: BrokenEngine(BROKEN[check], steps=20)) as server:
        assert server.server.state.ready is ready


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_real_pipeline_whose_decoder_draws_nothing_never_becomes_ready(
    model_folder: Callable[[str], Path], architecture: str
) -> None:
    def damaged(settings: ServeSettings) -> Engine:
        assert isinstance(settings.engine, DiffusersSettings)
        engine: DiffusersEngine = load(settings.engine.model)
        torch.nn.init.zeros_(engine._pipeline.vae.decoder.conv_out.weight)
        return engine

    with running(settings_for(model_folder(architecture)), damaged) as server:
        failure = server.outcome[0]
    assert isinstance(failure, StartupError)
    assert "gave a broken image (flat): it is one colour" in failure.message
