from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagegen.engines.threads import cpu_threads

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
