from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagegen import contract
from imagegen.server.memory import _find, device_memory, driver_version
from imagegen.server.metrics import ServerMetrics
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
    told = dict(info)
    assert {"pipeline", "dtype", "scheduler", "torch", "gpu"} <= told.keys()
    assert (told["cuda"], told["driver"]) == ("", ""), "on a CPU there are none"


class Driver:
    """NVML, as far as it is asked: knows devices by what they are asked for."""

    def __init__(self, *, lost: bool = False) -> None:
        self.lost = lost

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.82.07"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if self.lost:
            raise OSError("GPU is lost")
        return SimpleNamespace(used=70 if handle == "device 1" else 0, total=100)

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


KNOWN = {"allocated": 1, "peak_reserved": 2, "device_used": 60, "device_total": 99}
"""What torch tells; it does not see all that others have of the device."""


def vram(metrics: ServerMetrics) -> dict[str, float]:
    return {
        sample.labels["kind"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == contract.VRAM_BYTES
    }


def test_what_allocator_and_driver_know_of_a_device_is_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    metrics = ServerMetrics(model="kites", revision="0", edges=contract.latency_edges())
    metrics.engine_loaded(
        device="cuda:1",
        description={"cuda": "13.0", "driver": driver_version("cuda:1")},
        memory=device_memory("cuda:1", lambda: dict(KNOWN)),
    )

    assert vram(metrics) == {**KNOWN, "device_used": 70, "device_total": 100}
    wanted = {"model": "kites", "revision": "0", "cuda": "13.0", "driver": "580.82.07"}
    assert metrics.registry.get_sample_value(contract.BUILD_INFO, wanted) == 1
    driver.lost = True
    assert vram(metrics) == KNOWN, "a scrape goes on without the driver"


@pytest.mark.parametrize("module", [None, SimpleNamespace(), Driver()])
def test_without_the_driver_the_allocators_numbers_are_all_there_are(
    monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)  # None: no such package
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")
    assert device_memory("cuda:0", lambda: KNOWN)() == KNOWN


def test_a_slice_of_a_device_is_not_taken_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slice_of_seven = {"allocated": 1, "device_used": 6, "device_total": 14}

    assert device_memory("cuda:0", lambda: dict(slice_of_seven))() == slice_of_seven


def test_only_of_nvidias_devices_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())

    def memory() -> dict[str, int]:
        return {"allocated": 1}

    assert driver_version("cpu") == driver_version("hosted") == ""
    assert device_memory("cpu", memory) is memory
    assert device_memory("hosted", memory) is memory
