from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from imagegen import contract
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
    info = next(labels for name, labels in fresh.samples() if name == contract.BUILD_INFO)
    assert {"pipeline", "dtype", "scheduler", "torch", "gpu"} <= dict(info).keys()
