"""Real tiny pipelines and real servers on the loopback."""

from __future__ import annotations

import gc
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from imagegen import contract
from imagegen.contract import ExitCode, OomPhase
from imagegen.engines.base import Batch, Engine, Images, StageClock
from imagegen.engines.diffusers.engine import DiffusersEngine
from imagegen.engines.diffusers.loading import load_diffusers
from imagegen.engines.folder import check_folder
from imagegen.engines.settings import Demand, DiffusersSettings
from imagegen.miniature.tiny import make_tiny
from imagegen.server.lifecycle import Server, load_engine
from imagegen.server.settings import Defaults, Limits, ServeSettings

ARCHITECTURES = ("flux", "sd", "sd3", "sdxl")
PATIENCE_SECONDS = 60.0
"""What takes longer than this has gone wrong, also on a busy machine."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def light_collections() -> Iterator[None]:
    """Leave out of garbage collections what the libraries made when they were imported: the engine
    asks for one whenever memory runs out."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def prompt_shutdowns() -> Iterator[None]:
    """Let servers of the standard library notice at once that they are shut down: they look twice a
    second, longer than many a test takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socketserver.BaseServer.serve_forever, "__defaults__", (0.02,))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            make_tiny(architecture, seed=1, out=made[architecture])
        return made[architecture]

    return folder


DEMAND = Demand(width=32, height=32, steps=2, guidance_scale=4.0, max_steps=40, max_batch_size=4)


def load(
    folder: Path,
    cls: type[DiffusersEngine] | None = None,
    demand: Demand = DEMAND,
    **options: Any,
) -> Any:
    settings = DiffusersSettings(folder, **{"precision": "Float32", **options})
    return load_diffusers(check_folder(folder), settings, demand, cls)


@dataclass
class Trouble:
    """What a moody engine does; tests change it while the server runs."""

    fits: int = 64
    phase: OomPhase = OomPhase.DECODE
    tiles_help: bool = False
    tiles_help_width: int = 1 << 16
    spared_width: int = 0
    poison: str | None = None
    may_go_on: threading.Event = field(default_factory=threading.Event)
    calls: list[int] = field(default_factory=list)
    error: Exception | None = None
    blank: bool = False
    engine: Engine | None = None
    started: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_go_on.set()


class MoodyEngine(DiffusersEngine):
    """A real pipeline on a device whose memory, speed and health the test decides."""

    trouble: Trouble

    def _call(self, batch: Batch, clock: StageClock, should_stop: Callable[[], bool]) -> Images:
        self.trouble.calls.append(len(batch))
        self.trouble.started.set()
        if not self.trouble.may_go_on.wait(PATIENCE_SECONDS):
            raise TimeoutError("the test forgot to let the engine go on")
        if self.trouble.error is not None:
            raise self.trouble.error
        if self.trouble.poison in batch.prompts:
            raise ValueError("secret detail in /model/unet")
        self._run_out(batch, OomPhase.ENCODE)

        def stop_or_run_out() -> bool:
            self._run_out(batch, OomPhase.DENOISE)
            return should_stop()

        images = super()._call(batch, clock, stop_or_run_out)
        # Memory runs out late, so that the generators of the attempt have been drawn from.
        self._run_out(batch, OomPhase.DECODE)
        return images * 0 if self.trouble.blank else images

    def _run_out(self, batch: Batch, phase: OomPhase) -> None:
        settings = batch.settings
        spared = settings.width <= self.trouble.spared_width or (
            self.trouble.tiles_help
            and settings.tiled_decoding
            and settings.width <= self.trouble.tiles_help_width
        )
        if phase is self.trouble.phase and len(batch) > self.trouble.fits and not spared:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A server that runs in this process, and a client of it."""

    server: Server
    settings: ServeSettings
    http: httpx.Client
    outcome: list[ExitCode | BaseException]
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def generate(self, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/images/generations", json={"prompt": "a red kite", **fields})

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Send a body as it is."""
        told = {"Content-Type": "application/json", **headers}
        return self.http.post("/v1/images/generations", content=body, headers=told)

    def samples(self, prefix: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Give the series whose names begin so."""
        text = self.http.get(f"http://127.0.0.1:{self.settings.metrics_port}/metrics").text
        wanted = "".join(line for line in text.splitlines(keepends=True) if line.startswith(prefix))
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(wanted)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(
            value
            for (sample, present), value in self.samples(name).items()
            if sample == name and wanted <= present
        )


def settings_for(
    folder: Path, *, options: dict[str, Any] | None = None, **changes: Any
) -> ServeSettings:
    settings = ServeSettings(
        engine=DiffusersSettings(folder, **{"precision": "Float32", **(options or {})}),
        model_name="kites",
        revision="0123456789",
        defaults=Defaults(steps=2, guidance_scale=5.0, width=32, height=32),
        limits=Limits(max_steps=40, max_batch_size=4, max_images_per_request=6, max_pixels=9216),
        latency_edges=contract.latency_edges([0.25, 1.7]),
        host="127.0.0.1",
        port=free_port(),
        metrics_port=free_port(),
        queue_capacity=4,
        drain_seconds=PATIENCE_SECONDS,
    )
    return replace(settings, **changes)


@contextmanager
def running(
    settings: ServeSettings, loader: Callable[[ServeSettings], Engine] = load_engine
) -> Iterator[Running]:
    outcome: list[ExitCode | BaseException] = []
    opened = threading.Event()
    server = Server(settings, loader)
    announce = server.state.open

    def open_and_tell(*arguments: Any, **more: Any) -> None:
        announce(*arguments, **more)
        opened.set()

    server.state.open = open_and_tell  # type: ignore[method-assign]

    def run() -> None:
        try:
            outcome.append(server.run())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcome.append(error)
        opened.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert opened.wait(PATIENCE_SECONDS)
    with httpx.Client(
        # Nothing is encrypted: without certificates to read, a client is there at once.
        base_url=f"http://127.0.0.1:{settings.port}",
        timeout=PATIENCE_SECONDS,
        verify=False,  # noqa: S501
    ) as http:
        try:
            yield Running(server, settings, http, outcome, thread)
        finally:
            server.stop()
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


MoodyServer = Callable[..., AbstractContextManager[tuple[Running, Trouble]]]


@pytest.fixture
def moody_server(model_folder: Callable[[str], Path]) -> MoodyServer:
    @contextmanager
    def start(trouble: Trouble | None = None, **changes: Any) -> Iterator[tuple[Running, Trouble]]:
        trouble = trouble or Trouble()

        def loader(settings: ServeSettings) -> Engine:
            assert isinstance(settings.engine, DiffusersSettings)
            engine = load(settings.engine.model, MoodyEngine)
            engine.trouble = trouble
            return engine  # type: ignore[no-any-return]

        with running(settings_for(model_folder("sd"), **changes), loader) as server:
            if not server.outcome:  # forget the warm-up
                trouble.calls.clear()
                trouble.started.clear()
            yield server, trouble

    return start


@pytest.fixture(scope="session")
def server(model_folder: Callable[[str], Path]) -> Iterator[Running]:
    with running(settings_for(model_folder("sd"), queue_capacity=64)) as one:
        yield one


def serve_arguments(folder: Path, *more: str) -> list[str]:
    arguments = f"""--model {folder} --precision Float32 --scheduler DDIM --steps 2
        --guidance-scale 5 --width 32 --height 32 --max-steps 40 --max-batch-size 2
        --max-images-per-request 4 --max-pixels 4096 --latency-edges 0.25,1.7 --revision 0123456789
        --model-name kites --host 127.0.0.1 --queue-capacity 4"""
    return ["serve", *arguments.split(), *more]


@dataclass
class Serving:
    """``imagegen serve`` in a process of its own, ready or not."""

    process: subprocess.Popen[bytes]
    port: int


@pytest.fixture(scope="session", autouse=True)
def early_start(
    request: pytest.FixtureRequest, model_folder: Callable[[str], Path]
) -> Iterator[Serving | None]:
    """Start the process that one test needs before the first test: it imports torch meanwhile."""
    if not any("serving" in item.fixturenames for item in _functions(request.session)):
        yield None
        return
    port = free_port()
    arguments = serve_arguments(
        model_folder("sd"),
        *("--drain-seconds", "20", "--port", str(port), "--metrics-port", str(free_port())),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Serving(process, port)
    finally:
        process.kill()
        process.wait()


def _functions(session: pytest.Session) -> Iterator[pytest.Function]:
    return (item for item in session.items if isinstance(item, pytest.Function))


@pytest.fixture
def serving(early_start: Serving | None) -> Serving:
    assert early_start is not None
    return early_start
