"""Whole rollouts of models that were trained: one that spells, its distillate, its shiny rival."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.handle import Cluster
from tests.cluster.processes import wait_for
from tests.e2e.service import (
    ERRORS,
    EVERY_GATE,
    LATENCY,
    MEMORY,
    VS_STABLE,
    Document,
    Service,
    candidate,
    condition,
)

pytestmark = pytest.mark.node

CHEAP: Final = {"name": "cost-vs-stable", "cost": {"maxIncreasePercent": 15}}
_SIZE: Final = {"width": 128, "height": 64}
SPELLER: Final[Document] = {
    "model": "miniature",
    "steps": 12,
    "pipeline": {**_SIZE, "scheduler": "DPMSolverMultistep", "guidanceScale": "1.5"},
    "suite": "miniature",
}
TURBO: Final[Document] = {
    "model": "miniature-turbo",
    "steps": 4,
    "pipeline": {**_SIZE, "scheduler": "LCM", "guidanceScale": "1"},
    "suite": "miniature",
}
SHINY: Final[Document] = {
    "model": "miniature-shiny",
    "steps": 15,
    "pipeline": {**_SIZE, "scheduler": "DDIM", "guidanceScale": "12"},
    "suite": "miniature",
}


@pytest.fixture(scope="module")
def _sign(operator: Cluster, studio: str) -> Iterator[Service]:
    service = Service(operator, studio, "sign")
    service.declare(**SPELLER)
    service.until(lambda status: bool(status.get("stable")), "the first revision to serve")
    yield service
    operator.kubectl("delete", "modelrollout", service.name, "-n", studio, "--timeout=60s")


@pytest.fixture
def sign(_sign: Service) -> Iterator[Service]:
    """Give a service of a model that spells, with no attempt in progress."""
    yield _sign
    _sign.settle()


def size_of(encoded: str) -> tuple[int, int]:
    """Give width and height of a PNG: they stand at the same place in every one."""
    width, height = struct.unpack(">II", base64.b64decode(encoded)[16:24])
    return width, height


def test_a_distilled_model_is_promoted_with_its_tested_pod_and_is_cheaper(sign: Service) -> None:
    before = sign.stable()
    attempt = sign.next_attempt()

    sign.declare(**TURBO, gates=[*EVERY_GATE, VS_STABLE, CHEAP])
    sign.until(lambda status: candidate(status).get("stage") == "Isolated", "measurement")
    revision = sign.status()["candidate"]["revision"]
    tested = set(sign.server_pods(revision))
    assert sign.serving_pods() == set(sign.server_pods(before)), "users stay on stable"
    record = sign.until_ended(attempt)

    assert record["outcome"] == "Promoted", record
    status = sign.status()
    assert status["stable"]["revision"] == revision
    gates = {gate["name"]: gate for gate in status["gates"]}
    assert {gate["verdict"] for gate in gates.values()} == {"Pass"}
    assert "cheaper" in gates["cost-vs-stable"]["estimate"], gates["cost-vs-stable"]
    assert condition(status, "Promoted")["status"] == "True"
    assert sign.serving_pods() == tested, "the tested pod is the promoted pod"
    assert size_of(sign.generate()["data"][0]["b64_json"]) == (128, 64)
    wait_for(lambda: not sign.server_pods(before), what="the old pods to go", timeout=90)


def test_a_shiny_model_that_is_slow_is_rolled_back_on_latency(sign: Service) -> None:
    before, serving = sign.stable(), sign.serving_pods()
    attempt = sign.next_attempt()

    sign.declare(**SHINY, batch=8, gates=[{**LATENCY, "latency": {
        "percentile": 90, "maxMilliseconds": 300}}, MEMORY, ERRORS])  # fmt: skip
    record = sign.until_ended(attempt)

    assert (record["outcome"], record["reason"]) == ("RolledBack", "GateFailed")
    assert "slower than 300 ms, limit 10 %: exceeded" in record["message"]
    assert record["decisionToDoneMilliseconds"] < 2000
    status = sign.status()
    assert status["stable"]["revision"] == before
    assert condition(status, "RollbackVerified")["status"] == "True"
    assert sign.serving_pods() == serving, "users never left the stable pods"
