from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from imagegen import contract
from imagegen.cli import main
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, free_port


def serve_arguments(folder: Path, *more: str) -> list[str]:
    arguments = f"""--model {folder} --precision Float32 --scheduler DDIM --steps 2
        --guidance-scale 5 --width 32 --height 32 --max-steps 40 --max-batch-size 2
        --max-images-per-request 4 --max-pixels 4096 --latency-edges 0.25,1.7 --revision 0123456789
        --model-name kites --host 127.0.0.1 --queue-capacity 4"""
    return ["serve", *arguments.split(), *more]


def test_a_model_that_is_not_there_ends_with_code_3_and_a_termination_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    ports = ["--port", str(free_port()), "--metrics-port", str(free_port())]
    code = main(serve_arguments(tmp_path / "nowhere", *ports, "--termination-log", str(log)))

    assert code == 3
    assert log.read_text().startswith("ModelInvalid: model folder")
    assert "ModelInvalid" in capsys.readouterr().err


def test_settings_that_contradict_each_other_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(serve_arguments(tmp_path, "--steps", "50"))
    assert caught.value.code == contract.ExitCode.USAGE
    assert "--steps 50 is above --max-steps" in capsys.readouterr().err


def test_sigterm_drains_a_real_process_in_spite_of_an_open_connection(
    model_folder: Callable[[str], Path],
) -> None:
    port = free_port()
    arguments = serve_arguments(
        model_folder("sd"),
        "--drain-seconds",
        "20",
        "--port",
        str(port),
        "--metrics-port",
        str(free_port()),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as http:
            wait_until_ready(http, process)
            answer = http.post("/v1/images/generations", json={"prompt": "a kite", "n": 3})
            assert answer.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == contract.ExitCode.DRAINED
    finally:
        process.kill()
        process.wait()


def wait_until_ready(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 4 * PATIENCE_SECONDS  # a busy machine is slow to import torch
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if http.get(contract.READY_PATH).status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("the server did not become ready")


def test_make_tiny_is_the_same_model_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in [("one", "3"), ("same", "3"), ("other", "4")]:
        assert main(["make-tiny", "--seed", seed, "--out", str(tmp_path / name)]) == 0

    def weights(name: str) -> bytes:
        return (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    assert weights("one") == weights("same")
    assert weights("one") != weights("other")
    assert not list(tmp_path.rglob("*.bin"))


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
