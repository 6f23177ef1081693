"""What the measurements of the inference server are made with."""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving import __main__ as command
from benchmarks.serving import load
from benchmarks.serving.accelerator import batch_of, psnr
from benchmarks.serving.processes import free_port, machine, started
from benchmarks.serving.studies import Figure, Scale
from tests.unit.imagegen.scripted import Reply, Scripted, scripted

PATIENCE_SECONDS = 60.0


def body(number: int) -> dict[str, Any]:
    return {"seed": number}


def root(api: Scripted) -> str:
    return api.url.removesuffix("/v1")


def seeds(api: Scripted) -> list[int]:
    return sorted(seen.fields["seed"] for seen in api.seen)


# -- load ------------------------------------------------------------------------------------------
@given(
    st.lists(st.floats(0, 1e3), min_size=1, max_size=50),
    st.floats(0.01, 1),
)
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = load.percentile(values, share)

    def part_up_to(limit: float) -> float:
        return sum(value <= limit for value in values) / len(values)

    assert found in values
    assert part_up_to(found) >= share - 1e-9
    assert all(part_up_to(value) < share + 1e-9 for value in values if value < found)


def test_clients_send_each_request_once_and_wait_for_their_answers() -> None:
    together = threading.Barrier(3)
    at_once = threading.Semaphore(3)
    too_many = []

    def before() -> None:
        if not at_once.acquire(blocking=False):
            too_many.append(True)
        together.wait(PATIENCE_SECONDS)  # passes only when three are there
        at_once.release()

    with scripted(Reply(before=before)) as api:
        answers, seconds = load.clients(root(api), 3, requests=12, body=body)

    assert [answer.status for answer in answers] == [200] * 12
    assert seeds(api) == list(range(12))
    assert not too_many
    assert max(answer.seconds for answer in answers) <= seconds


def test_arrivals_wait_for_no_answer() -> None:
    all_there = threading.Barrier(20)

    def before() -> None:
        all_there.wait(PATIENCE_SECONDS)  # the first is answered when the last has been sent

    with scripted(Reply(429, before=before)) as api:
        answers = load.arrivals(root(api), per_second=100, seconds=0.2, body=body)

    assert [answer.status for answer in answers] == [429] * 20
    assert seeds(api) == list(range(20))
    assert answers[0].seconds > answers[-1].seconds


# -- processes -------------------------------------------------------------------------------------
def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_server_is_ready_when_it_is_handed_out_and_ended_afterwards() -> None:
    port = free_port()
    command_line = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with started(command_line, port=port, ready_path="/") as process:
        assert is_there(process.pid)
        assert process.resident_bytes() > 1e6
        assert 0 <= process.cpu_seconds() < PATIENCE_SECONDS
    assert not is_there(process.pid)


def test_a_server_that_ends_before_it_is_ready_is_told() -> None:
    command_line = [sys.executable, "-c", "raise SystemExit(3)"]
    with (
        pytest.raises(RuntimeError, match="did not become ready"),
        started(command_line, port=free_port(), ready_path="/"),
    ):
        pass


def test_the_machine_is_named_with_how_busy_it_is() -> None:
    assert " cores, load average " in machine()


# -- what is told ----------------------------------------------------------------------------------
@pytest.fixture
def one_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def study(scale: Scale) -> list[Figure]:
        return [Figure("study", "repetitions", scale.of(20, 3), "times")]

    monkeypatch.setattr(command, "STUDIES", {"study": study})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "end_in_order", lambda: None)  # this process goes on
    return tmp_path / "results"


def test_a_full_run_is_kept(one_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0

    kept = json.loads((one_study / "study.json").read_text())
    assert kept["figures"] == [
        {"study": "study", "name": "repetitions", "value": 20, "unit": "times"}
    ]
    assert "| study | repetitions | 20 | times |" in capsys.readouterr().out


def test_a_quick_run_is_shown_and_not_kept(
    one_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--quick", "--only", "study"]) == 0

    assert "| study | repetitions | 3 | times |" in capsys.readouterr().out
    assert not one_study.exists()


# -- accelerators ----------------------------------------------------------------------------------
def test_the_likeness_of_pictures_is_in_decibels() -> None:
    picture = np.full((1, 8, 8, 3), 0.5, dtype=np.float32)

    assert psnr(picture, picture) == math.inf
    assert psnr(picture, picture + np.float32(0.1)) == pytest.approx(20, abs=1e-4)


def test_a_batch_has_a_seed_for_every_picture() -> None:
    batch = batch_of(64, 3)

    assert batch.seeds == (0, 1, 2)
    assert (batch.settings.width, batch.settings.height) == (64, 64)
