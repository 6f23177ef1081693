from __future__ import annotations

import math
import subprocess
import sys

import pytest

from imagegen import contract


def test_gate_limits_become_edges_without_duplicates() -> None:
    edges = contract.latency_edges([1.7, 0.25, 1.0])

    assert {0.25, 1.7} <= set(edges)
    assert edges == tuple(sorted(set(edges)))
    assert len(edges) == len(contract.LATENCY_EDGES) + 2


@pytest.mark.parametrize("edge", [0.0, -1.0, math.nan, math.inf])
def test_an_edge_that_is_no_duration_is_refused(edge: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        contract.latency_edges([edge])


@pytest.mark.parametrize(
    ("width", "height", "name"),
    [(512, 512, "le_512"), (1024, 256, "le_512"), (512, 520, "le_768"), (2048, 2048, "larger")],
)
def test_size_classes_go_by_area(width: int, height: int, name: str) -> None:
    assert contract.size_class(width, height) == name


def test_request_class_tells_what_was_asked_and_not_what_was_made_of_it() -> None:
    assert contract.request_class(None, None, 1) == "size_default.steps_default.images_one"
    assert contract.request_class((64, 64), 11, 2) == "size_le_512.steps_le_30.images_several"


def test_every_request_class_is_listed() -> None:
    sizes = [None, (8, 8), (700, 700), (1000, 1000), (1500, 1500), (4000, 4000)]
    made = {
        contract.request_class(size, steps, images)
        for size in sizes
        for steps in (None, 1, 20, 100)
        for images in (1, 5)
    }

    assert made == set(contract.REQUEST_CLASSES)


def test_log_moments_can_only_grow_and_differences_do_not_depend_on_the_unit() -> None:
    assert contract.log_duration(1e-9) == 0
    difference = contract.log_duration(0.44) - contract.log_duration(0.4)
    assert difference == pytest.approx(math.log(1.1))


def test_contract_and_probe_need_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, imagegen.cli, imagegen.probe.runner, imagegen.contract;"
        "print([name for name in ('torch', 'diffusers', 'starlette') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
