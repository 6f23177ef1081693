"""A server whose process really runs out of memory: the allocator of the CPU gets no more."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from imagegen import contract
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, free_port, serve_arguments
from tests.unit.imagegen.test_real_process import wait_until_ready

MEBIBYTE = 1 << 20


@dataclass
class Limited:
    """``imagegen serve`` in a process of its own, whose memory the test decides on."""

    process: subprocess.Popen[bytes]
    http: httpx.Client

    @contextmanager
    def given(self, more_bytes: int) -> Iterator[None]:
        """Let the process have so much more memory than it has, and no more."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (held,) = (row.split()[1] for row in status.splitlines() if row.startswith("VmData"))
        bound = int(held) * 1024 + more_bytes
        resource.prlimit(self.process.pid, resource.RLIMIT_DATA, (bound, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(self.process.pid, resource.RLIMIT_DATA, free)

    def post(self, count: int, *, pinned: int | None = None, **fields: Any) -> httpx.Response:
        asked = {"seed": 5, "n": count, "size": "96x96", "num_inference_steps": 1, **fields}
        body = {"prompt": "a red kite", **asked}
        headers = {} if pinned is None else {contract.BATCH_HEADER: str(pinned)}
        return self.http.post("/v1/images/generations", json=body, headers=headers)

    def too_little_for(self, count: int, *, enough: int, **fields: Any) -> int:
        """Find bytes that a batch of so many does not fit in, but one of half as many does."""
        more, status = enough, 200
        while status == 200:
            more = more * 3 // 4
            with self.given(more):
                status = self.post(count, pinned=count, **fields).status_code
        assert status == 503
        return more * 9 // 10  # what the process holds at rest is not always the same

    def counted(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.http.get(contract.METRICS_PATH).text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
def limited(model_folder: Callable[[str], Path]) -> Iterator[Limited]:
    port = free_port()
    arguments = serve_arguments(
        model_folder("sd"),
        *("--port", str(port), "--metrics-port", str(free_port())),
        *("--max-batch-size", "4", "--max-pixels", str(96 * 96)),
        *("--attention", "math"),  # needs the more memory the larger a batch is
    )
    # The allocator shall give back what is freed, or what it keeps would be there for the next.
    tidy = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments],
        env={**os.environ, **tidy, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http:
            wait_until_ready(http, process)
            yield Limited(process, http)
    finally:
        process.kill()
        process.wait()


def images(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [entry["b64_json"] for entry in answer.json()["data"]]


def test_real_lack_of_memory_costs_time_and_no_request(limited: Limited) -> None:
    in_pairs = images(limited.post(4, pinned=2))
    too_little_for_four = limited.too_little_for(4, enough=270 * MEBIBYTE)
    with limited.given(too_little_for_four):
        split = limited.post(4)

    assert images(split) == in_pairs
    assert [entry["batch_size"] for entry in split.json()["data"]] == [2] * 4
    assert [entry["degraded"] for entry in split.json()["data"]] == [[]] * 4
    assert limited.counted(contract.OOM_TOTAL, phase="denoise", recovered="true") == 1
    assert limited.counted(contract.BATCH_SPLITS_TOTAL, reason="oom") == 1

    # Without guidance there is half as much to denoise, so that decoding needs the most.
    alone = {"guidance_scale": 0}
    too_little_for_one = limited.too_little_for(1, enough=80 * MEBIBYTE, **alone)
    with limited.given(too_little_for_one):
        (entry,) = limited.post(1, **alone).json()["data"]

    assert entry["degraded"] == ["tiled"]
    assert limited.counted(contract.OOM_TOTAL, phase="decode", recovered="true") == 1
    assert limited.counted(contract.OOM_TOTAL, recovered="false") == 2, "the pinned ones above"
    assert images(limited.post(4, pinned=2)) == in_pairs
