from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from imagegen import contract
from imagegen.contract import TIMEOUT_HEADER, ExitCode, Outcome, StartupFailureCode
from imagegen.engines.base import Engine
from imagegen.errors import RequestRefusedError, StartupError
from imagegen.server import generation
from imagegen.server.settings import Defaults, Limits, ServeSettings
from tests.unit.imagegen.conftest import (
    PATIENCE_SECONDS,
    MoodyServer,
    Running,
    Trouble,
    running,
    settings_for,
)


def wait_until(server: Running, name: str, value: float, **labels: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.value(name, **labels) != value:
        assert time.monotonic() < deadline, f"{name} is {server.value(name, **labels)}"
        time.sleep(0.01)


def wait_for_queue(server: Running, requests: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.server.state.admission.depth() != requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_says_when_to_come_back(moody_server: MoodyServer) -> None:
    with moody_server(queue_capacity=1) as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.may_go_on.clear()
        working = pool.submit(server.generate, seed=1)
        assert trouble.started.wait(PATIENCE_SECONDS)
        waiting = pool.submit(server.generate, seed=2)
        wait_until(server, contract.QUEUE_DEPTH, 1)

        refused = server.generate(seed=3)
        trouble.may_go_on.set()

        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        assert working.result().status_code == waiting.result().status_code == 200
        assert server.value(contract.REQUESTS_TOTAL, outcome="busy", code="429") == 1
        assert server.value(contract.QUEUE_DEPTH) == 0


def test_a_failure_shows_no_traceback_and_the_next_request_is_served(
    moody_server: MoodyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with moody_server() as (server, trouble):
        trouble.error = RuntimeError("secret detail in /model/unet")
        answer = server.generate()
        trouble.error = None

        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "secret" in caplog.text
        assert answer.headers["X-Request-Id"] in caplog.text
        assert answer.json()["error"]["code"] == "internal_error"
        assert server.value(contract.REQUESTS_TOTAL, outcome="error", code="500") == 1
        assert server.generate().status_code == 200


def test_a_broken_picture_is_not_delivered(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.blank = True
        answer = server.generate(n=2)

        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "image_broken"
        assert server.value(contract.WATCHDOG_REJECTIONS_TOTAL, check="flat") == 2
        assert server.value(contract.REQUESTS_TOTAL, outcome="watchdog") == 1
        assert server.value(contract.IMAGES_TOTAL) == 0


def test_a_request_that_waits_too_long_is_given_up(moody_server: MoodyServer) -> None:
    with (
        moody_server(request_timeout_seconds=0.3) as (server, trouble),
        ThreadPoolExecutor() as pool,
    ):
        server.server.state.costs._rates.clear()  # a slow warm-up would have it refused at once
        trouble.may_go_on.clear()
        working = pool.submit(server.generate, seed=1)
        assert trouble.started.wait(PATIENCE_SECONDS)

        waited = server.generate(seed=2)
        trouble.may_go_on.set()

        assert waited.status_code == 504
        assert working.result().json()["error"]["code"] == "deadline_exceeded"
        wait_until(server, contract.REQUESTS_TOTAL, 2, outcome="timeout", code="504")
        assert server.value(contract.GPU_WASTED_SECONDS_TOTAL, reason="timeout") > 0


def test_a_client_may_be_less_patient_than_the_server(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.may_go_on.clear()
        answer = server.post(b'{"prompt": "a kite"}', **{TIMEOUT_HEADER: "0.2"})
        trouble.may_go_on.set()

        assert answer.status_code == 504
        assert answer.headers["X-Should-Retry"] == "false"
        wait_until(server, contract.REQUESTS_TOTAL, 1, outcome="timeout", code="504")


def test_what_an_image_took_counts_also_when_it_cannot_be_sent(
    moody_server: MoodyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    with moody_server() as (server, _):
        monkeypatch.setattr(generation, "inspect", fail)
        answer = server.generate()

        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert "no room" not in answer.text
        wasted = server.value(contract.GPU_WASTED_SECONDS_TOTAL, reason="error")
        assert 0 < wasted == server.value(contract.GPU_BUSY_SECONDS_TOTAL)
        assert server.value(contract.REQUESTS_TOTAL, outcome="error", code="500") == 1


def test_a_request_that_cannot_be_served_harms_no_other(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.poison = "a bad word"
        trouble.may_go_on.clear()
        first = pool.submit(server.generate, seed=1)
        assert trouble.started.wait(PATIENCE_SECONDS)
        prompts = ["one", "two", trouble.poison, "four"]
        answers = [pool.submit(server.generate, prompt=prompt, seed=2) for prompt in prompts]
        wait_for_queue(server, 4)
        trouble.calls.clear()
        trouble.may_go_on.set()

        assert [answer.result().status_code for answer in answers] == [200, 200, 500, 200]
        assert first.result().status_code == 200
        assert sorted(trouble.calls) == [1, 1, 2, 2, 4]
        assert server.value(contract.BATCH_SPLITS_TOTAL, reason="error") == 2
        wasted = server.value(contract.GPU_WASTED_SECONDS_TOTAL, reason="error")
        assert 0 < wasted < server.value(contract.GPU_BUSY_SECONDS_TOTAL)


def test_what_the_engine_refuses_for_all_is_not_tried_apart(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.may_go_on.clear()
        first = pool.submit(server.generate, size="48x32")
        assert trouble.started.wait(PATIENCE_SECONDS)
        both = [pool.submit(server.generate) for _ in range(2)]
        wait_for_queue(server, 2)
        trouble.calls.clear()
        trouble.error = RequestRefusedError(
            outcome=Outcome.BUSY, status=429, code="upstream", message="said by the model's own API"
        )
        trouble.may_go_on.set()

        for answer in (first, *both):
            assert answer.result().status_code == 429
            assert answer.result().json()["error"]["code"] == "upstream"
        assert trouble.calls == [2]
        assert server.value(contract.REQUESTS_TOTAL, outcome="busy", code="429") == 3


def test_liveness_is_lost_when_a_step_takes_longer_than_a_batch_may_and_not_for_the_queue(
    moody_server: MoodyServer,
) -> None:
    with (
        moody_server(
            request_timeout_seconds=0.5,
            limits=Limits(max_steps=2, max_batch_size=1, max_images_per_request=1, max_pixels=1024),
        ) as (server, trouble),
        ThreadPoolExecutor() as pool,
    ):
        assert server.http.get(contract.LIVE_PATH).status_code == 200
        trouble.may_go_on.clear()
        stuck = pool.submit(server.generate)
        assert trouble.started.wait(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while server.http.get(contract.LIVE_PATH).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert server.http.get(contract.LIVE_PATH).json() == {"live": False}
        trouble.may_go_on.set()
        assert stuck.result().status_code == 504
        assert server.generate().status_code == 200
        assert server.http.get(contract.LIVE_PATH).json() == {"live": True}


def test_a_client_that_left_stops_its_work_at_a_step_boundary(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.may_go_on.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/v1/images/generations",
                json={"prompt": "a kite", "num_inference_steps": 40},
                timeout=0.2,
            )
        job_left = threading.Event()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while server.server.state.open_requests == 0 and time.monotonic() < deadline:
            job_left.wait(0.01)
        trouble.may_go_on.set()

        wait_until(server, contract.REQUESTS_TOTAL, 1, outcome="cancelled", code="499")
        assert server.value(contract.IMAGES_TOTAL) == 0
        assert server.generate().status_code == 200


def test_draining_finishes_accepted_work_and_refuses_new(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.may_go_on.clear()
        accepted = [pool.submit(server.generate, n=5)]
        assert trouble.started.wait(PATIENCE_SECONDS)
        accepted += [pool.submit(server.generate, size="48x32", n=5) for _ in range(2)]
        wait_for_queue(server, 2)
        server.server.stop()
        wait_until(server, contract.READY, 0)

        assert server.http.get(contract.READY_PATH).status_code == 503
        assert server.http.get(contract.LIVE_PATH).status_code == 200
        refused = server.generate()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        trouble.may_go_on.set()

        assert [future.result().status_code for future in accepted] == [200, 200, 200]
    assert server.outcome == [ExitCode.DRAINED]


def test_open_connections_do_not_delay_the_exit(
    moody_server: MoodyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with moody_server() as (server, _):
        assert server.generate().status_code == 200  # the client keeps its connection
    assert server.outcome == [ExitCode.DRAINED]
    assert "timeout graceful shutdown exceeded" not in caplog.text


def test_a_drain_has_a_deadline(moody_server: MoodyServer) -> None:
    with moody_server(drain_seconds=0.1) as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.may_go_on.clear()
        in_hands = pool.submit(server.generate)
        assert trouble.started.wait(PATIENCE_SECONDS)
        waiting = pool.submit(server.generate)
        wait_for_queue(server, 1)
        server.server.stop()

        for answer in (in_hands, waiting):
            assert answer.result().status_code == 503
            assert answer.result().json()["error"]["code"] == "draining"
        trouble.may_go_on.set()
    assert server.outcome == [ExitCode.DRAIN_DEADLINE]


def test_a_sick_device_ends_the_process_and_everybody_gets_an_answer(
    moody_server: MoodyServer, tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    with moody_server(termination_log=log) as (server, trouble), ThreadPoolExecutor() as pool:
        trouble.error = torch.AcceleratorError("CUDA error: device-side assert triggered")
        trouble.may_go_on.clear()
        in_hands = pool.submit(server.generate)
        assert trouble.started.wait(PATIENCE_SECONDS)
        waiting = [pool.submit(server.generate, size=size) for size in ("48x32", "32x48")]
        wait_for_queue(server, 2)
        trouble.may_go_on.set()

        assert in_hands.result().status_code == 500
        for answer in waiting:
            assert answer.result().status_code == 503
            assert answer.result().json()["error"]["code"] == "device_failed"
    assert server.outcome == [ExitCode.CRASHED]
    assert log.read_text().startswith("DeviceFailed: the device needs a new process: CUDA error")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"options": {"scheduler": "FlowMatchEulerDiscrete"}},
            StartupFailureCode.MODEL_INVALID,
            "usable: DDIM",
        ),
        (
            {"options": {"allow_schedulers": ("DDIM", "fast_ema")}},
            StartupFailureCode.MODEL_INVALID,
            "--allow-schedulers: fast_ema cannot sample this model",
        ),
        (
            {"defaults": Defaults(steps=2, guidance_scale=1, width=36, height=32)},
            StartupFailureCode.MODEL_INVALID,
            "multiples of 8",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why(
    model_folder: Callable[[str], Path],
    changes: dict[str, Any],
    code: StartupFailureCode,
    words: str,
) -> None:
    with running(settings_for(model_folder("sd"), **changes)) as server:
        failure = server.outcome[0]
    assert isinstance(failure, StartupError)
    assert failure.code == code
    assert words in failure.message


def test_a_warm_up_that_does_not_fit_fails_at_the_declared_batch_size(
    moody_server: MoodyServer,
) -> None:
    with moody_server(trouble=Trouble(fits=2)) as (server, trouble):
        failure = server.outcome[0]
    assert isinstance(failure, StartupError)
    assert failure.code == StartupFailureCode.HOST_OOM  # on a CPU the host's memory is the device's
    assert "4 x 32x32 at 2 steps" in failure.message
    assert trouble.calls == [4]


@pytest.mark.parametrize("code", [StartupFailureCode.HOST_OOM, StartupFailureCode.CUDA_OOM])
def test_lack_of_memory_while_loading_is_counted_until_the_process_ends(
    tmp_path: Path, code: StartupFailureCode
) -> None:
    def load(_: ServeSettings) -> Engine:
        raise StartupError(code, "no memory to load the model's weights; use a bigger device")

    with running(settings_for(tmp_path), load) as server:
        (failure,) = server.outcome
        registry = server.server.metrics.registry

    assert isinstance(failure, StartupError)
    assert failure.code == code
    counted = {
        sample.labels["phase"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == contract.OOM_TOTAL and sample.labels["recovered"] == "false"
    }
    assert counted == {phase: float(phase == "load") for phase in contract.OOM_PHASES}


def test_a_taken_port_is_named(moody_server: MoodyServer) -> None:
    with (
        moody_server() as (first, _),
        moody_server(metrics_port=first.settings.metrics_port) as (second, _),
    ):
        failure = second.outcome[0]
    assert isinstance(failure, StartupError)
    assert failure.code == StartupFailureCode.PORT_UNAVAILABLE
    assert str(first.settings.metrics_port) in failure.message
