from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from imagegen import contract
from imagegen.cli import main
from imagegen.contract import Arm
from imagegen.engines.base import Batch, Engine, Images, StageClock
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.hosted.settings import HostedSettings
from imagegen.engines.settings import DiffusersSettings
from imagegen.probe import runner
from imagegen.probe.client import ProbeClient
from imagegen.probe.metrics import ProbeMetrics
from imagegen.probe.phases import MOST_FAILURES, drive_load
from imagegen.probe.runner import ProbeSettings, run_phases
from imagegen.probe.schedule import load_schedule
from imagegen.probe.suite import load_suite
from imagegen.server.settings import ServeSettings
from tests.unit.imagegen.conftest import (
    PATIENCE_SECONDS,
    MoodyServer,
    Running,
    free_port,
    load,
    running,
    settings_for,
)
from tests.unit.imagegen.hosting import good
from tests.unit.imagegen.scripted import scripted


class ShakyEngine(DiffusersEngine):
    """A real pipeline that never makes the same picture twice."""

    def _call(self, batch: Batch, clock: StageClock, should_stop: Callable[[], bool]) -> Images:
        images = super()._call(batch, clock, should_stop)
        noise = np.random.default_rng().normal(0, 0.05, images.shape)
        return np.clip(images + noise, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def shaky(model_folder: Callable[[str], Path]) -> Iterator[Running]:
    def loader(settings: ServeSettings) -> Engine:
        assert isinstance(settings.engine, DiffusersSettings)
        return load(settings.engine.model, ShakyEngine)  # type: ignore[no-any-return]

    with running(settings_for(model_folder("sd"), queue_capacity=64), loader) as one:
        yield one


SETTINGS = ProbeSettings(
    candidate="",
    stable=None,
    rate=20,
    requests=8,
    repeat_prompts=2,
    repeats=3,
    suite="default",
    host="127.0.0.1",
    metrics_port=0,
    max_in_flight={Arm.CANDIDATE: 16, Arm.STABLE: 16},
    timeout_seconds=PATIENCE_SECONDS,
    ready_seconds=PATIENCE_SECONDS,
    repeat_seconds=PATIENCE_SECONDS,
)


@dataclass
class Result:
    metrics: ProbeMetrics

    def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(
            generate_latest(self.metrics.registry).decode()
        ):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


def probe(**changes: object) -> Result:
    metrics = ProbeMetrics()
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    asyncio.run(run_phases(settings, load_suite(settings.suite), metrics))
    return Result(metrics)


def test_both_arms_get_the_same_requests_and_are_compared(
    server: Running, shaky: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    before = server.value(contract.REQUEST_LOG_SECONDS_COUNT)
    result = probe(stable=server.url, candidate=shaky.url)

    for arm in Arm:
        assert result.value(contract.PROBE_REQUESTS_TOTAL, arm=arm, outcome="ok") == 6 + 8
        assert result.value(contract.PROBE_REQUESTS_TOTAL, arm=arm, outcome="error") == 0
        assert result.value(f"{contract.PROBE_REQUEST_DURATION_SECONDS}_count", arm=arm) == 8
        assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm=arm) == 2
    assert result.value(contract.PROBE_REPEAT_PSD, arm="stable") == 0
    deviation = result.value(contract.PROBE_REPEAT_PSD, arm="candidate")
    assert deviation == pytest.approx(0.05, rel=0.2)
    assert result.value(contract.PROBE_LOADING) == result.value(contract.PROBE_DONE) == 1
    assert server.value(contract.REQUEST_LOG_SECONDS_COUNT) == before + 14
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["ready", "repeats", "repeats", "load", "done"]


def test_without_a_stable_arm_only_the_candidate_is_measured(shaky: Running) -> None:
    result = probe(candidate=shaky.url, requests=2, repeat_prompts=1)

    assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm="candidate") == 1
    assert result.value(contract.PROBE_REQUESTS_TOTAL, arm="stable", outcome="ok") == 0
    assert result.value(contract.PROBE_REPEAT_PSD, arm="stable") is None


def test_a_server_whose_model_takes_no_seeds_is_asked_without() -> None:
    with scripted(good()) as api:
        hosted = HostedSettings(api.url, model="big-model", allowed_hosts=("127.0.0.1",))
        with running(settings_for(Path("/"), engine=hosted, queue_capacity=64)) as server:
            result = probe(candidate=server.url, requests=4, repeat_prompts=1)
            refused = server.value(contract.REQUESTS_TOTAL, outcome="invalid")

    assert result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="ok") == 3 + 4
    assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm="candidate") == 1
    assert refused == 1


def test_failed_repeats_are_tried_again_until_they_are_there(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.fits = 0

        def recover() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while server.value(contract.REQUESTS_TOTAL, outcome="oom") < 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            trouble.fits = 4

        with ThreadPoolExecutor() as pool:
            recovered = pool.submit(recover)
            result = probe(candidate=server.url, requests=1, repeat_prompts=1)
            recovered.result()

    errors = result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="error")
    assert errors is not None
    assert errors >= 1
    assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm="candidate") == 1


def test_a_slow_server_does_not_slow_the_schedule_and_open_requests_are_bounded(
    moody_server: MoodyServer,
) -> None:
    with moody_server(queue_capacity=64) as (server, trouble):
        trouble.may_go_on.clear()
        metrics = ProbeMetrics()
        shots = load_schedule(load_suite("default"), rate=1000, count=10)

        async def drive() -> float:
            client = ProbeClient(server.url, timeout_seconds=1)
            began = time.monotonic()
            await drive_load(
                {Arm.CANDIDATE: client}, shots, max_in_flight={Arm.CANDIDATE: 4}, metrics=metrics
            )
            await client.close()
            return time.monotonic() - began

        seconds = asyncio.run(drive())
        trouble.may_go_on.set()

    result = Result(metrics)
    assert seconds < PATIENCE_SECONDS / 2, "the server answers nothing before the patience ends"
    assert result.value(contract.PROBE_SKIPPED_TOTAL, arm="candidate") == 6
    assert result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="error") == 4


class SlowPictures(ThreadingHTTPServer):
    """A server that takes its time and notes how many requests it ever had at once."""

    def __init__(self, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _SlowHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.seconds = seconds
        self.open = self.most = 0
        self.pinned: list[str | None] = []
        self.lock = threading.Lock()

    @contextmanager
    def request(self) -> Iterator[None]:
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        time.sleep(self.seconds)
        with self.lock:
            self.open -= 1
        yield


class _SlowHandler(BaseHTTPRequestHandler):
    server: SlowPictures

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.pinned.append(self.headers[contract.BATCH_HEADER])
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        encoded = base64.b64encode(picture.getvalue()).decode()
        with self.server.request():
            self._answer(json.dumps({"data": [{"b64_json": encoded}]}).encode())

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def slow_pictures(seconds: float) -> Iterator[SlowPictures]:
    with SlowPictures(seconds) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_slow_stable_server_never_has_two_requests_of_the_probe_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[ProbeSettings] = []
    monkeypatch.setattr(runner, "run_probe", asked.append)
    with slow_pictures(0.2) as stable, slow_pictures(0.2) as candidate:
        # Given what the command line says when nothing is said about it
        main(["probe", "--stable", stable.url, "--candidate", candidate.url])
        result = probe(
            stable=stable.url,
            candidate=candidate.url,
            requests=10,
            repeat_prompts=1,
            max_in_flight=asked[0].max_in_flight,
        )

    assert stable.most == 1
    assert candidate.most > 1
    sent = result.value(contract.PROBE_REQUESTS_TOTAL, arm="stable", outcome="ok")
    skipped = result.value(contract.PROBE_SKIPPED_TOTAL, arm="stable")
    assert sent is not None
    assert skipped is not None
    assert skipped > 0
    assert sent + skipped == 3 + 10
    assert result.value(contract.PROBE_SKIPPED_TOTAL, arm="candidate") == 0
    assert result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="ok") == 3 + 10


def test_the_probe_waits_longer_than_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ProbeSettings] = []
    monkeypatch.setattr(runner, "run_probe", asked.append)
    main(["probe", "--candidate", "http://127.0.0.1:9"])
    assert asked[0].timeout_seconds > ServeSettings.request_timeout_seconds


def test_repeats_do_not_depend_on_what_else_the_server_does_and_load_does() -> None:
    with slow_pictures(0) as candidate:
        probe(candidate=candidate.url, requests=2, repeat_prompts=1)

    assert candidate.pinned == ["1", "1", "1", None, None]


def test_load_is_told_only_when_the_repeats_are_over() -> None:
    with slow_pictures(0) as candidate:
        metrics = ProbeMetrics()
        seen: list[float | None] = []
        measured = metrics.repeated

        def noting(arm: Arm, deviations: Sequence[float]) -> None:
            measured(arm, deviations)
            seen.append(Result(metrics).value(contract.PROBE_LOADING))

        metrics.repeated = noting  # type: ignore[method-assign]
        settings = replace(SETTINGS, candidate=candidate.url, requests=1)
        asyncio.run(run_phases(settings, load_suite("default"), metrics))

    assert seen == [0, 0]
    assert Result(metrics).value(contract.PROBE_LOADING) == 1


def test_an_unreachable_arm_is_counted_and_does_not_stop_the_other() -> None:
    with slow_pictures(0) as candidate:
        result = probe(
            stable=f"http://127.0.0.1:{free_port()}",
            candidate=candidate.url,
            requests=2,
            repeat_prompts=1,
            ready_seconds=0,
            repeat_seconds=1.5,
        )

    errors = result.value(contract.PROBE_REQUESTS_TOTAL, arm="stable", outcome="error")
    assert errors is not None
    assert errors > 2
    assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm="stable") == 0
    assert result.value(contract.PROBE_REPEAT_PSD, arm="stable") is None, "no evidence, no number"
    assert result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="ok") == 3 + 2
    assert result.value(contract.PROBE_REPEAT_PROMPTS_TOTAL, arm="candidate") == 1
    assert result.value(contract.PROBE_DONE) == 1


def test_a_candidate_that_only_fails_is_put_under_load_all_the_same() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    result = probe(candidate=dead, requests=4, ready_seconds=0, repeat_seconds=3600)

    assert time.monotonic() - began < 60
    assert result.value(contract.PROBE_LOADING) == 1
    failed = result.value(contract.PROBE_REQUESTS_TOTAL, arm="candidate", outcome="error")
    assert failed == MOST_FAILURES + 4


def test_without_a_number_requests_never_end() -> None:
    shots = load_schedule(load_suite("default"), rate=2, count=None)
    assert next(itertools.islice(shots, 99_999, None)).at_seconds == pytest.approx(49_999.5)


def test_the_schedule_keeps_the_rate_and_never_repeats_a_request() -> None:
    prompts = load_suite("default")
    shots = tuple(load_schedule(prompts, rate=4, count=100))

    assert [shot.at_seconds for shot in shots[:3]] == [0, 0.25, 0.5]
    assert len({(shot.prompt.id, shot.seed) for shot in shots}) == 100
    assert all(0 <= shot.seed < 2**32 for shot in shots)


def test_the_default_suite_has_distinct_prompts() -> None:
    prompts = load_suite("default")

    assert len(prompts) == 24
    assert len({prompt.id for prompt in prompts}) == 24
    assert all(1 <= len(prompt.prompt) <= 2000 for prompt in prompts)


def test_an_unknown_suite_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="there are: default"):
        load_suite("nothing")
