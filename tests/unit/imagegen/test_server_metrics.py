from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from imagegen import contract
from imagegen.server.memory import _find, device_memory
from tests.unit.imagegen.conftest import Running, running, settings_for


@pytest.fixture(scope="module")
def fresh(model_folder: Callable[[str], Path]) -> Iterator[Running]:
    """A server that has had no request yet."""
    with running(settings_for(model_folder("sd"), queue_capacity=5)) as one:
        yield one


def test_every_counter_exists_at_0_before_the_first_request(fresh: Running) -> None:
    samples = fresh.samples()

    common = {("model", "kites"), ("revision", "0123456789")}
    expected: dict[str, list[dict[str, str]]] = {
        contract.REQUESTS_TOTAL: [
            {"outcome": outcome, "code": str(code)}
            for outcome, codes in contract.OUTCOME_CODES.items()
            for code in codes
        ],
        contract.OOM_TOTAL: [
            {"phase": phase, "recovered": recovered}
            for phase, recovered in product(contract.OOM_PHASES, ("true", "false"))
        ],
        contract.GPU_BUSY_SECONDS_TOTAL: [{"device": "cpu"}],
        contract.GPU_WASTED_SECONDS_TOTAL: [{"reason": r} for r in contract.WASTE_REASONS],
        contract.BATCH_SPLITS_TOTAL: [{"reason": r} for r in contract.SPLIT_REASONS],
        contract.WATCHDOG_REJECTIONS_TOTAL: [{"check": c} for c in contract.WATCHDOG_CHECKS],
        contract.REQUEST_GPU_SECONDS_SUM: [{}],
        contract.REQUEST_GPU_SECONDS_COUNT: [{}],
        contract.REQUEST_GPU_SECONDS_SQUARES_SUM: [{}],
    }
    for name in (contract.IMAGES_TOTAL, contract.MEGAPIXELS_TOTAL, contract.DENOISE_STEPS_TOTAL):
        expected[name] = [{"size_class": size} for size in contract.SIZE_CLASSES]
    for name in (contract.REQUEST_DURATION_COUNT, contract.REQUEST_DURATION_SUM):
        expected[name] = [{"size_class": size} for size in contract.SIZE_CLASSES]
    for name in (
        contract.REQUEST_LOG_SECONDS_SUM,
        contract.REQUEST_LOG_SECONDS_COUNT,
        contract.REQUEST_LOG_SECONDS_SQUARES_SUM,
    ):
        expected[name] = [{"request_class": each} for each in contract.REQUEST_CLASSES]

    for name, combinations in expected.items():
        present = {labels: value for (sample, labels), value in samples.items() if sample == name}
        wanted = {frozenset(common | set(labels.items())) for labels in combinations}
        assert set(present) == wanted, name
        assert set(present.values()) == {0.0}, name


def test_gate_limits_are_bucket_edges(fresh: Running) -> None:
    edges = {
        float(dict(labels)["le"])
        for (name, labels) in fresh.samples()
        if name == contract.REQUEST_DURATION_BUCKET
    }
    assert edges == {*contract.LATENCY_EDGES, 0.25, 1.7, float("inf")}


def test_state_is_told(fresh: Running) -> None:
    assert fresh.value(contract.READY) == 1
    assert fresh.value(contract.QUEUE_CAPACITY) == 5
    assert fresh.value(contract.MODEL_LOAD_SECONDS) > 0
    assert fresh.value(contract.WARMUP_SECONDS) > 0
    assert fresh.value(contract.PROCESS_MEMORY_BYTES) > 1e7
    info = next(labels for name, labels in fresh.samples() if name == contract.BUILD_INFO)
    assert {"pipeline", "dtype", "scheduler", "torch", "gpu"} <= dict(info).keys()


class Driver:
    """Knows devices by what they are asked for."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"device {index}"

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        return f"device {name}"


@pytest.mark.parametrize(
    ("visible", "index", "found"),
    [
        ("", 1, "device 1"),
        ("3, 5", 1, "device 5"),
        ("GPU-0a1b,GPU-2c3d", 1, "device GPU-2c3d"),
        ("MIG-77", 0, "device MIG-77"),
    ],
)
def test_the_driver_is_asked_for_the_device_that_the_process_sees(
    visible: str, index: int, found: str
) -> None:
    assert _find(Driver(), index, {"CUDA_VISIBLE_DEVICES": visible}) == found


@pytest.mark.parametrize(("visible", "index"), [("3", 1), ("none", 0), ("-1", 0)])
def test_a_device_that_the_driver_cannot_know_is_not_guessed(visible: str, index: int) -> None:
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        _find(Driver(), index, {"CUDA_VISIBLE_DEVICES": visible})


def test_only_of_nvidias_devices_the_driver_is_asked() -> None:
    def memory() -> dict[str, int]:
        return {"allocated": 1}

    assert device_memory("cpu", memory) is memory
    assert device_memory("hosted", memory) is memory
    # With a driver its numbers are added, without one the engine's own are all there are.
    assert device_memory("cuda:0", memory)()["allocated"] == 1
