"""The commands as processes of their own: what they do on a signal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from imagegen import contract
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, Serving, free_port


def test_sigterm_drains_a_real_process(serving: Serving) -> None:
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=PATIENCE_SECONDS) as http,
        ThreadPoolExecutor() as pool,
    ):
        wait_until_ready(http, serving.process)
        body = {"prompt": "a kite", "n": 3, "num_inference_steps": 20}
        accepted = pool.submit(http.post, "/v1/images/generations", json=body)
        inflight = re.compile(rf"^{contract.INFLIGHT_REQUESTS}{{.*}} 1.0$", re.MULTILINE)
        while not inflight.search(http.get(contract.METRICS_PATH).text):
            assert not accepted.done()
        serving.process.send_signal(signal.SIGTERM)

        assert len(accepted.result(PATIENCE_SECONDS).json()["data"]) == 3
        # The client keeps its connections open, which delays nothing.
        assert serving.process.wait(PATIENCE_SECONDS) == contract.ExitCode.DRAINED


def wait_until_ready(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 2 * PATIENCE_SECONDS  # a busy machine is slow to import torch
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if http.get(contract.READY_PATH).status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("the server did not become ready")


def test_probe_stops_on_sigterm_and_serves_metrics_until_then() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{free_port()}"
    arguments = f"probe --candidate {url} --requests 1 --host 127.0.0.1 --metrics-port {port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments.split(), "--ready-seconds", "600"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        text = ""
        while contract.PROBE_DONE not in text:
            assert time.monotonic() < deadline
            assert process.poll() is None
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            except httpx.ConnectError:
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
