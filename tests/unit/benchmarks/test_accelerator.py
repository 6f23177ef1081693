"""The measurements on an accelerator, tried with narrow models on the CPU."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from benchmarks.serving import accelerator
from benchmarks.serving.accelerator import PARTS, engine_of, main
from benchmarks.serving.full_size import make
from benchmarks.serving.studies import Figure
from imagegen.engines.base import Batch, GenerationSettings

SIDE = 64
NARROWEST = 32


@pytest.mark.parametrize(
    ("architecture", "scale", "shift"),
    [("sdxl", 0.13025, None), ("sd35-medium", 1.5305, 0.0609)],
)
def test_a_model_of_the_measurements_makes_pictures_from_latents_scaled_like_its_own(
    architecture: str, scale: float, shift: float | None, tmp_path: Path
) -> None:
    make(architecture, tmp_path, shrink=NARROWEST)
    engine = engine_of(tmp_path, SIDE, most=1, precision="Float32")

    one_step = Batch(("a red kite",), (0,), GenerationSettings(SIDE, SIDE, 1, 5.0))
    images = engine.generate(one_step, should_stop=lambda: False).images

    assert images.shape == (1, SIDE, SIDE, 3)
    assert np.isfinite(images).all()
    latents = diffusers.AutoencoderKL.load_config(tmp_path / "vae")
    assert (latents["scaling_factor"], latents["shift_factor"]) == (scale, shift)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    make("sdxl", folder, shrink=NARROWEST)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[argparse.Namespace]:
    """Few steps and calls; without a device, and with torch's usual algorithms afterwards."""
    for name, value in {"STEPS": 2, "TIMED_STEPS": 2, "CANCELLED_CALLS": 3, "REPEATS": 2}.items():
        monkeypatch.setattr(accelerator, name, value)
    monkeypatch.setattr(accelerator, "_on_gpu", lambda: False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield argparse.Namespace(side=SIDE, most=2, price_per_hour=3.0)
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def measured(part: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    figures = PARTS[part](folder, options)
    values = {one.name: one.value for one in figures}
    assert len(values) == len(figures)
    assert all(value >= 0 for value in values.values())
    return values


def test_speed_memory_and_cancelling_are_measured(narrow: Path, short: argparse.Namespace) -> None:
    found = measured("speed", narrow, short)

    for count in (1, 2):
        name = f"BFloat16, batch {count}, 2 steps"
        assert found[name] > 0
        assert found[f"{name}: memory"] > 0
        assert found[f"{name}: picture 0 against batch 1"] > 20
    assert found["a batch of 2 is given up: calls of 3"] > 0
    assert found["a batch of 2 is given up: longest"] >= found["a batch of 2 is given up: median"]


def test_the_incident_is_measured_before_and_after_it_is_bounded(
    narrow: Path, short: argparse.Namespace
) -> None:
    found = measured("incident", narrow, short)

    for case, pictures in (
        ("before: Float32, batch 8, 100 steps", 8),
        ("after: BFloat16, batch 2, 40 steps", 2),
    ):
        whole = found[f"{case}: time of a batch"]
        assert whole > found[f"{case}: time of a step"] > 0
        assert found[f"{case}: memory"] > 0
        cost = found[f"{case}: cost per image at 3 an hour"]
        assert cost == pytest.approx(whole / 3600 * 3 / pictures)


@pytest.mark.parametrize(("part", "mode"), [("repeats", "usual"), ("deterministic",) * 2])
def test_repeats_are_compared_as_the_probe_does(
    narrow: Path, short: argparse.Namespace, part: str, mode: str
) -> None:
    found = measured(part, narrow, short)

    assert found[f"{mode}, batch 2: PSD of 2 runs"] == 0, "on a CPU nothing differs"
    assert found[f"{mode}, batch 2: greatest difference"] == 0
    assert torch.are_deterministic_algorithms_enabled() is (part == "deterministic")


def test_without_a_device_only_narrow_models_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerator, "_on_gpu", lambda: False)

    assert main([]) == 3
    assert "there is no CUDA device here" in capsys.readouterr().err


def test_figures_are_kept_with_the_names_of_model_and_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [Figure("speed", "batch 1", 2.5, "images/s"), Figure("speed", "same", math.inf, "dB")]
    monkeypatch.setattr(accelerator, "_on_gpu", lambda: False)
    monkeypatch.setattr(accelerator, "make", lambda *_, **__: None)
    monkeypatch.setattr(accelerator, "_in_processes", lambda *_: figures)
    kept = tmp_path / "results" / "sdxl.json"

    assert main(["--architecture", "sdxl", "--shrink", "32", "--results", str(kept)]) == 0

    told = json.loads(kept.read_text(), parse_constant=pytest.fail)
    assert told["machine"].startswith(
        "sdxl, widths divided by 32, 1024x1024, no CUDA device, torch"
    )
    assert " cores, load average " in told["machine"]
    assert [one["value"] for one in told["figures"]] == [2.5, None]
    assert "| speed | batch 1 | 2.5 | images/s |" in capsys.readouterr().out
