"""The one thread that owns the engine: pipelines share state and bear no second caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from imagegen.contract import ExitCode, OomPhase
from imagegen.engines.base import Batch, Engine
from imagegen.errors import DeviceMemoryError, EngineBrokenError
from imagegen.server.admission import Admission
from imagegen.server.attempts import Attempts
from imagegen.server.batching import Slot
from imagegen.server.jobs import Job, given_up
from imagegen.server.metrics import ServerMetrics
from imagegen.server.oom import MemoryLimits

__all__ = ["Ailment", "Pulse", "Worker"]

_LOG = logging.getLogger(__name__)


class Pulse:
    """Tells from outside whether a thread that works gets on with it."""

    def __init__(self) -> None:
        self._last: float | None = None

    def beat(self) -> None:
        """Note that work has begun or gone one step further."""
        self._last = time.monotonic()

    def rest(self) -> None:
        """Note that there is nothing to do."""
        self._last = None

    def age(self) -> float:
        """Give the seconds since the last beat; 0 at rest."""
        last = self._last
        return 0.0 if last is None else time.monotonic() - last


@dataclass(frozen=True)
class Ailment:
    """Why the process has to end."""

    exit_code: ExitCode
    message: str


class Worker(threading.Thread):
    """Serves the queue until it is closed and empty.

    Parameters
    ----------
    engine
        Used by this thread alone from its start on.
    admission, limits, metrics
        Shared with the rest of the server.
    check
        A single picture that always has to fit.
    most_ooms
        After so many single pictures in a row without memory, `check` is tried.
    on_ailing
        Told True before that and False when the check went well: no new work in between.
    on_broken
        Told why the process has to end.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        limits: MemoryLimits,
        metrics: ServerMetrics,
        check: Batch,
        most_ooms: int,
        on_ailing: Callable[[bool], None],
        on_broken: Callable[[Ailment], None],
    ) -> None:
        super().__init__(name="worker", daemon=True)
        self.pulse = Pulse()
        self._engine = engine
        self._admission = admission
        self._metrics = metrics
        self._check = check
        self._most_ooms = most_ooms
        self._on_ailing = on_ailing
        self._on_broken = on_broken
        self._attempts = Attempts(
            engine=engine,
            admission=admission,
            limits=limits,
            metrics=metrics,
            beat=self.pulse.beat,
        )

    def run(self) -> None:
        """Take batches until there will be no more, or the engine can make none."""
        ailment: Ailment | None = None
        try:
            while ailment is None and (batch := self._admission.take()):
                ailment = self._serve(batch)
                batch.clear()  # its pictures would else live until the next one comes
                self.pulse.rest()
        except Exception:  # noqa: BLE001 - without a worker the process is of no use
            _LOG.exception("the worker failed")
            ailment = Ailment(ExitCode.CRASHED, "internal error of the worker")
        if ailment is not None:
            self._on_broken(ailment)

    def _serve(self, batch: Sequence[Slot[Job]]) -> Ailment | None:
        self.pulse.beat()
        for job in {id(slot.owner): slot.owner for slot in batch}.values():
            if not job.started:
                job.started = True
                self._metrics.waited(time.monotonic() - job.arrived)
        ailment: Ailment | None = None
        try:
            self._attempts.run(batch)
        except EngineBrokenError as error:
            ailment = Ailment(ExitCode.CRASHED, f"the device needs a new process: {error}")
        ailing = self._attempts.single_ooms >= self._most_ooms
        if ailing:  # before anybody who is told of it can come again
            self._on_ailing(True)
        for job in self._admission.give_back():
            self._settle(job)
        return self._check_memory() if ailing and ailment is None else ailment

    def _settle(self, job: Job) -> None:
        refusal = given_up(job.left) if job.left is not None else job.failure
        if refusal is None:
            job.succeed()
            return
        self._metrics.failed(refusal.outcome, refusal.status, job.work)
        job.fail(refusal)

    def _check_memory(self) -> Ailment | None:
        """Find out whether it is the requests that are too large, or the device that is full."""
        _LOG.warning("%d images in a row did not fit: checking", self._attempts.single_ooms)
        began = self._engine.busy_clock()
        try:
            phase = self._lacks_memory(self._check)
            if phase is OomPhase.DECODE and self._engine.can_tile:  # as a user's would be made then
                tiled = replace(self._check.settings, tiled_decoding=True)
                phase = self._lacks_memory(replace(self._check, settings=tiled))
        except EngineBrokenError as error:
            return Ailment(ExitCode.CRASHED, f"the device needs a new process: {error}")
        seconds = self._engine.busy_clock() - began
        self._metrics.wasted(seconds, "oom")
        if phase is not None:
            self._metrics.ran_out_of_memory(phase, recovered=False)
            return Ailment(
                ExitCode.OUT_OF_MEMORY,
                "no memory any more for a single image of the default size; the device's memory "
                "is used by something else, or leaks",
            )
        self._attempts.single_ooms = 0
        self._on_ailing(False)
        return None

    def _lacks_memory(self, batch: Batch) -> OomPhase | None:
        """Make a batch for nobody; tell in which phase memory ran out, if it did."""
        try:
            self._engine.generate(batch, should_stop=self._go_on)
        except DeviceMemoryError as error:
            return error.phase
        return None

    def _go_on(self) -> bool:
        self.pulse.beat()
        return False
