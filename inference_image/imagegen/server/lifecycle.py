"""Start, drain and exit of ``imagegen serve``."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from imagegen.contract import ExitCode, OomPhase, Outcome, StartupFailureCode
from imagegen.engines import loading
from imagegen.engines.base import Engine
from imagegen.errors import RequestRefusedError, StartupError
from imagegen.server.api import build_app
from imagegen.server.jobs import draining
from imagegen.server.memory import device_memory, driver_version
from imagegen.server.metrics import ServerMetrics
from imagegen.server.ports import Port, http_port, metrics_port
from imagegen.server.settings import ServeSettings
from imagegen.server.state import ServerState, rules_for
from imagegen.server.warmup import sample_batch, warm_up
from imagegen.server.worker import Ailment, Worker

__all__ = ["Server", "load_engine", "serve"]

_LOG = logging.getLogger(__name__)
_LAST_ANSWERS_SECONDS = 2.0


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
        self._ailment: Ailment | None = None
        self._on_cpu = False
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
        settings = self._settings
        with (
            metrics_port(settings.host, settings.metrics_port, self.metrics.registry),
            http_port(settings.host, settings.port, build_app(self.state)) as http,
        ):
            began = time.monotonic()
            engine = self._loaded()
            self.metrics.load_seconds.set(time.monotonic() - began)
            worker = self._start(engine)
            _LOG.info("ready: model %s", settings.model_name)
            self._stop.wait()
            ailment = self._ailment
            code = self._drain(worker, http) if ailment is None else self._give_up(ailment)
            if not worker.is_alive():  # one that is stuck still uses it
                engine.close()
            return code

    def _loaded(self) -> Engine:
        try:
            return self._load(self._settings)
        except StartupError as failure:
            if failure.code in {StartupFailureCode.CUDA_OOM, StartupFailureCode.HOST_OOM}:
                self.metrics.ran_out_of_memory(OomPhase.LOAD, recovered=False)
            raise

    def _start(self, engine: Engine) -> Worker:
        began = time.monotonic()
        self._on_cpu = engine.device == "cpu"
        description = engine.describe()
        self.metrics.engine_loaded(
            device=engine.device,
            description={**description, "driver": driver_version(engine.device)},
            memory=device_memory(engine.device, engine.memory),
        )
        rules = rules_for(engine, self._settings)
        try:
            rules.check_size(self._settings.defaults.width, self._settings.defaults.height)
        except RequestRefusedError as refusal:
            raise StartupError(
                StartupFailureCode.MODEL_INVALID, f"--width and --height: {refusal.message}"
            ) from refusal
        warm_up(engine, self._settings, metrics=self.metrics, costs=self.state.costs)
        self.metrics.warmup_seconds.set(time.monotonic() - began)
        worker = self._worker(engine)
        worker.start()
        self.state.open(rules, worker, scheduler=description.get("scheduler", ""))
        return worker

    def _worker(self, engine: Engine) -> Worker:
        return Worker(
            engine=engine,
            admission=self.state.admission,
            limits=self.state.memory_limits,
            metrics=self.metrics,
            check=sample_batch(engine, self._settings, count=1, steps=1),
            most_ooms=self._settings.most_ooms,
            on_ailing=self.state.set_ailing,
            on_broken=self._break,
        )

    def _break(self, ailment: Ailment) -> None:
        self._ailment = ailment
        self._stop.set()

    def _drain(self, worker: Worker, http: Port) -> ExitCode:
        _LOG.info("draining: %d requests are open", self.state.open_requests)
        deadline = time.monotonic() + self._settings.drain_seconds
        self.state.close()
        worker.join(self._settings.drain_seconds)
        if self._ailment is not None:
            return self._give_up(self._ailment)
        self._wait_for_answers(deadline)
        if worker.is_alive() or self.state.accepted_requests:
            left = self.state.accepted_requests
            _LOG.warning("drain deadline passed; %d requests given up", left)
            self.state.give_up(draining())
            return ExitCode.DRAIN_DEADLINE
        if not http.close(deadline - time.monotonic()):
            _LOG.warning("drain deadline passed; not all answers were read to their end")
            return ExitCode.DRAIN_DEADLINE
        _LOG.info("drained with %.1f s to spare", deadline - time.monotonic())
        return ExitCode.DRAINED

    def _give_up(self, ailment: Ailment) -> ExitCode:
        """End because the engine can make no more pictures; everybody gets an answer first."""
        _LOG.critical("the server ends: %s", ailment.message)
        self.state.close()
        self.state.give_up(
            RequestRefusedError(
                outcome=Outcome.ERROR,
                status=503,
                code="device_failed",
                message="the device has failed and the server starts anew; send the request again",
                retry_after=5,
            )
        )
        self._wait_for_answers(time.monotonic() + _LAST_ANSWERS_SECONDS)
        _write_termination_log(self._settings.termination_log, self._diagnosis(ailment))
        return ailment.exit_code

    def _diagnosis(self, ailment: Ailment) -> str:
        code = StartupFailureCode.DEVICE_FAILED
        if ailment.exit_code is ExitCode.OUT_OF_MEMORY:
            code = StartupFailureCode.HOST_OOM if self._on_cpu else StartupFailureCode.CUDA_OOM
        return f"{code}: {ailment.message}"

    def _wait_for_answers(self, deadline: float) -> None:
        """Let pictures that are made be encoded."""
        while self.state.open_requests and time.monotonic() < deadline:
            time.sleep(0.01)


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
        if server.state.current_rules is None:
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
