"""Start, warm-up, drain and exit of ``imagegen serve``."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client import start_http_server

from imagegen.contract import ExitCode, OomPhase, Outcome, StartupFailureCode
from imagegen.engines import loading
from imagegen.engines.base import Engine, GenerationSettings
from imagegen.errors import DeviceMemoryError, RequestRefusedError, StartupError
from imagegen.server.api import build_app
from imagegen.server.metrics import ServerMetrics
from imagegen.server.settings import ServeSettings
from imagegen.server.state import ServerState, rules_for
from imagegen.server.watchdog import check_picture
from imagegen.server.worker import Worker

__all__ = ["Server", "load_engine", "serve"]

_LOG = logging.getLogger(__name__)
_CLOSING_SECONDS = 2
_WARMUP_PROMPT = "a lighthouse on a rocky shore at dawn"


class _StopRequestedError(BaseException):
    """SIGTERM came before there was anything to drain; not an error that others may catch."""


def load_engine(settings: ServeSettings) -> Engine:
    """Load the engine of the settings.

    Raises
    ------
    StartupError
        As :func:`imagegen.engines.loading.load_engine`.
    """
    return loading.load_engine(settings.engine, settings.demand())


class Server:
    """One server process, from its open ports to its drained queue.

    Parameters
    ----------
    settings
        What the command line said.
    load
        Gives the engine; called once, after the ports are open.
    """

    def __init__(self, settings: ServeSettings, load: Callable[[ServeSettings], Engine]) -> None:
        self._settings = settings
        self._load = load
        self._stop = threading.Event()
        self._broken = threading.Event()
        self.metrics = ServerMetrics(
            model=settings.model_name, revision=settings.revision, edges=settings.latency_edges
        )
        self.state = ServerState(settings, self.metrics)

    def stop(self) -> None:
        """Ask the server to drain and end; may be called from a signal handler or any thread."""
        self._stop.set()

    def run(self) -> ExitCode:
        """Serve until :meth:`stop`.

        Raises
        ------
        StartupError
            If the server could not become ready.
        """
        with self._metrics_port(), self._http_port():
            worker = self._start()
            _LOG.info("ready: model %s", self._settings.model_name)
            self._stop.wait()
            if self._broken.is_set():
                self.state.close()
                return ExitCode.CRASHED
            return self._drain(worker)

    def _start(self) -> Worker:
        began = time.monotonic()
        try:
            engine = self._load(self._settings)
        except StartupError as failure:
            if failure.code in {StartupFailureCode.CUDA_OOM, StartupFailureCode.HOST_OOM}:
                self.metrics.startup_oom(OomPhase.LOAD)
            raise
        loaded = time.monotonic()
        self.metrics.load_seconds.set(loaded - began)
        self.metrics.engine_loaded(
            device=engine.device, description=engine.describe(), memory=engine.memory
        )
        rules = rules_for(engine, self._settings)
        try:
            rules.check_size(self._settings.defaults.width, self._settings.defaults.height)
        except RequestRefusedError as refusal:
            raise StartupError(
                StartupFailureCode.MODEL_INVALID, f"--width and --height: {refusal.message}"
            ) from refusal
        self._warm_up(engine)
        self.metrics.warmup_seconds.set(time.monotonic() - loaded)
        worker = Worker(
            engine=engine,
            admission=self.state.admission,
            metrics=self.metrics,
            max_batch_size=self._settings.limits.max_batch_size,
            on_broken=self._break,
        )
        worker.start()
        self.state.open(rules)
        return worker

    def _warm_up(self, engine: Engine) -> None:
        """Make one batch of the largest size, so that trouble shows before users do."""
        defaults = self._settings.defaults
        count = 1 if engine.is_remote else self._settings.limits.max_batch_size
        batch = engine.example(
            _WARMUP_PROMPT,
            count,
            GenerationSettings(
                defaults.width, defaults.height, defaults.steps, defaults.guidance_scale
            ),
        )
        what = f"{count} x {defaults.width}x{defaults.height} at {defaults.steps} steps"
        try:
            made = engine.generate(batch, should_stop=lambda: False)
        except DeviceMemoryError as error:
            self.metrics.startup_oom(OomPhase.WARMUP)
            cpu = engine.device == "cpu"
            code = StartupFailureCode.HOST_OOM if cpu else StartupFailureCode.CUDA_OOM
            raise StartupError(
                code, f"no memory to warm up with {what}; lower the size or --max-batch-size"
            ) from error
        except Exception as error:
            raise StartupError(
                StartupFailureCode.WARMUP_FAILED, f"generating {what} failed: {error}"
            ) from error
        if any(check_picture(picture) == "non_finite" for picture in made.images):
            raise StartupError(
                StartupFailureCode.WARMUP_FAILED,
                f"generating {what} gave pixels that are not numbers; try another --precision",
            )

    def _break(self) -> None:
        self._broken.set()
        self._stop.set()

    def _drain(self, worker: Worker) -> ExitCode:
        _LOG.info("draining: %d requests are open", self.state.open_requests)
        deadline = time.monotonic() + self._settings.drain_seconds
        self.state.close()
        worker.join(self._settings.drain_seconds)
        if worker.is_alive():
            _LOG.warning("drain deadline passed; %d requests given up", self.state.open_requests)
            for _ in self.state.admission.give_up():
                self.metrics.refused(Outcome.BUSY, 503)
            return ExitCode.DRAIN_DEADLINE
        _LOG.info("drained with %.1f s to spare", deadline - time.monotonic())
        return ExitCode.DRAINED

    @contextlib.contextmanager
    def _metrics_port(self) -> Iterator[None]:
        port = self._settings.metrics_port
        try:
            server, thread = start_http_server(
                port, addr=self._settings.host, registry=self.metrics.registry
            )
        except OSError as error:
            raise _port_unavailable("--metrics-port", port, error) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @contextlib.contextmanager
    def _http_port(self) -> Iterator[None]:
        """Answer HTTP in a thread of its own: the main thread keeps the signals."""
        listener = _listen(self._settings.host, self._settings.port)
        server = uvicorn.Server(
            uvicorn.Config(
                build_app(self.state),
                access_log=False,
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=_CLOSING_SECONDS,
            )
        )
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            # Idle connections are closed at once; answers on their way have a moment.
            server.should_exit = True
            thread.join(_CLOSING_SECONDS + 1)
            listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _port_unavailable("--port", port, error) from error
    return listener


def _port_unavailable(option: str, port: int, error: OSError) -> StartupError:
    return StartupError(
        StartupFailureCode.PORT_UNAVAILABLE, f"{option} {port} cannot be used: {error.strerror}"
    )


def _write_termination_log(path: Path, text: str) -> None:
    """Tell the kubelet why; the file is there only in a container."""
    if path.exists():
        with contextlib.suppress(OSError):
            path.write_text(text[:4000] + "\n", encoding="utf-8")


def serve(settings: ServeSettings) -> int:
    """Run ``imagegen serve`` in the main thread until SIGTERM or SIGINT; give the exit code."""
    server = Server(settings, load_engine)

    def on_signal(_number: int, _frame: FrameType | None) -> Any:
        server.stop()
        if not server.state.ready and not server.state.open_requests:
            raise _StopRequestedError

    previous = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return server.run()
    except _StopRequestedError:
        _LOG.info("stopped before it was ready")
        return ExitCode.DRAINED
    except StartupError as failure:
        print(f"imagegen serve: {failure}", file=sys.stderr)  # noqa: T201 - the command's answer
        _write_termination_log(settings.termination_log, str(failure))
        return ExitCode.STARTUP_FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
