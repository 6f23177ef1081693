from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imagegen.engines.base import Batch, GenerationSettings, Images, StageClock
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.threads import cpu_threads
from tests.unit.imagegen.conftest import load

USABLE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("199000 100000\n", 1),
        ("99900000 100000\n", USABLE),
        ("max 100000\n", USABLE),
        ("", USABLE),
    ],
)
def test_threads_follow_the_containers_quota(tmp_path: Path, quota: str, threads: int) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text(quota)
    assert cpu_threads(environment={}, cpu_max=cpu_max) == threads


def test_outside_of_a_control_group_all_cores_are_used(tmp_path: Path) -> None:
    assert cpu_threads(environment={}, cpu_max=tmp_path / "none") == USABLE


@pytest.mark.parametrize(("declared", "threads"), [("3", 3), ("0", 1), ("many", 1)])
def test_a_declared_number_decides_when_it_is_one(
    tmp_path: Path, declared: str, threads: int
) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text("100000 100000\n")
    assert cpu_threads(environment={"OMP_NUM_THREADS": declared}, cpu_max=cpu_max) == threads


def threads_of_openmp() -> int:
    library = next((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    return int(ctypes.CDLL(str(library)).omp_get_max_threads())


class CountingEngine(DiffusersEngine):
    """A real pipeline that notes how many threads its first operation may use."""

    threads: int

    def _call(self, batch: Batch, clock: StageClock, should_stop: Callable[[], bool]) -> Images:
        self.threads = threads_of_openmp()
        return super()._call(batch, clock, should_stop)


def test_the_number_of_threads_holds_in_whatever_thread_generates(
    model_folder: Callable[[str], Path],
) -> None:
    engine: CountingEngine = load(model_folder("sd"), CountingEngine)

    def work() -> None:
        settings = GenerationSettings(32, 32, 1, 5.0)
        engine.generate(Batch(("a fox",), (1,), settings), should_stop=lambda: False)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()

    assert engine.threads == torch.get_num_threads() == 1
