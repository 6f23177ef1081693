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
import transformers
from prometheus_client.parser import text_string_to_metric_families

from imagegen import contract
from imagegen.miniature.tiny import build_tiny
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


def with_wide_encoder(folder: Path, width: int) -> Path:
    """Write a pipeline of which encoding a prompt takes 77 x 4 x `width` bytes, again and again."""
    pipeline = build_tiny("sd", seed=1)
    config = {**pipeline.text_encoder.config.to_dict(), "intermediate_size": width}
    wide = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))
    pipeline.register_modules(text_encoder=wide)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@contextmanager
def limited_server(folder: Path) -> Iterator[Limited]:
    port = free_port()
    arguments = serve_arguments(
        folder,
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


@pytest.fixture
def limited(model_folder: Callable[[str], Path]) -> Iterator[Limited]:
    with limited_server(model_folder("sd")) as server:
        yield server


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


def test_a_prompt_that_cannot_be_encoded_with_others_is_encoded_without(tmp_path: Path) -> None:
    small: dict[str, Any] = {"size": "32x32"}  # there is little to denoise and to decode
    with limited_server(with_wide_encoder(tmp_path, 1 << 16)) as server:
        in_pairs = images(server.post(4, pinned=2, **small))
        too_little_for_four = server.too_little_for(4, enough=400 * MEBIBYTE, **small)
        with server.given(too_little_for_four):
            split = server.post(4, **small)

        assert images(split) == in_pairs
        assert [entry["batch_size"] for entry in split.json()["data"]] == [2] * 4
        assert server.counted(contract.OOM_TOTAL, phase="encode", recovered="true") == 1
        assert server.counted(contract.OOM_TOTAL, phase="encode", recovered="false") == 1
        assert server.counted(contract.OOM_TOTAL) == 2, "in no other phase"
        assert images(server.post(4, pinned=2, **small)) == in_pairs


LOADING = """
import resource, sys
from pathlib import Path
from diffusers import StableDiffusionPipeline
from imagegen.cli import main
from imagegen.engines.diffusers import loading
(held,) = (row.split()[1] for row in Path("/proc/self/status").read_text().splitlines()
           if row.startswith("VmData"))
bound = int(held) * 1024 + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""
"""A server that has imported all it needs, and from then on gets so much more memory."""


def test_weights_that_do_not_fit_are_lack_of_memory_and_no_bad_model(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    folder = with_wide_encoder(tmp_path / "model", 1 << 20)
    assert (folder / "text_encoder/model.safetensors").stat().st_size > 128 * MEBIBYTE
    arguments = serve_arguments(
        folder,
        *("--port", str(free_port()), "--metrics-port", str(free_port())),
        *("--precision", "BFloat16", "--termination-log", str(log)),
    )
    process = subprocess.run(
        [sys.executable, "-c", LOADING, str(64 * MEBIBYTE), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        check=False,
    )

    assert log.read_text().startswith("HostOOM: no memory to load the model's weights")
    assert process.returncode == contract.ExitCode.STARTUP_FAILED
