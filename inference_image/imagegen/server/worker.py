"""The one thread that owns the engine: pipelines share state and bear no second caller."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from imagegen.contract import OomPhase, Outcome
from imagegen.engines.base import Batch, Engine, Images
from imagegen.errors import (
    DeviceMemoryError,
    EngineBrokenError,
    GenerationCancelledError,
    RequestRefusedError,
)
from imagegen.server.admission import Admission, Answer, Job
from imagegen.server.metrics import ServerMetrics
from imagegen.server.watchdog import check_picture

__all__ = ["Worker", "batches"]

_LOG = logging.getLogger(__name__)


def batches(job: Job, max_batch_size: int) -> list[Batch]:
    """Cut a job's pictures into batches of at most `max_batch_size`."""
    request = job.request
    return [
        Batch(
            (request.prompt,) * len(seeds),
            seeds,
            request.settings,
            (request.negative_prompt,) * len(seeds),
        )
        for start in range(0, len(job.seeds), max_batch_size)
        if (seeds := job.seeds[start : start + max_batch_size])
    ]


class Worker(threading.Thread):
    """Serves the queue until it is closed and empty.

    Parameters
    ----------
    engine
        Used by this thread alone from its start on.
    admission
        Where jobs come from.
    metrics
        Where failures are counted; successes are counted when their answer is ready.
    max_batch_size
        Most pictures of one engine call.
    on_broken
        Called when the engine needs a new process.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        metrics: ServerMetrics,
        max_batch_size: int,
        on_broken: Callable[[], None],
    ) -> None:
        super().__init__(name="worker", daemon=True)
        self._engine = engine
        self._admission = admission
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self._on_broken = on_broken

    def run(self) -> None:
        """Take jobs until there will be no more."""
        while (job := self._admission.take()) is not None:
            self._metrics.waited(time.monotonic() - job.arrived)
            try:
                answer = self._serve(job)
            except RequestRefusedError as refusal:
                self._metrics.failed(refusal.outcome, refusal.status, job.work)
                job.fail(refusal)
            else:
                job.succeed(answer)
            self._admission.worked(job.work.busy_seconds)

    def _serve(self, job: Job) -> Answer:
        """Make all pictures of a job; whatever goes wrong becomes a refusal."""
        if self._should_stop(job):
            raise _given_up(job)
        try:
            images = self._generate(job)
        except RequestRefusedError:
            raise
        except GenerationCancelledError as error:
            raise _given_up(job) from error
        except DeviceMemoryError as error:
            raise RequestRefusedError(
                outcome=Outcome.OOM,
                status=503,
                code="gpu_out_of_memory",
                message="no memory for one such image; ask for a smaller size",
            ) from error
        except EngineBrokenError as error:
            _LOG.critical("the device needs a new process: %s", error)
            self._on_broken()
            raise _internal_error() from error
        except Exception as error:
            _LOG.exception("generation failed")
            raise _internal_error() from error
        failures = [failure for image in images for one in image if (failure := check_picture(one))]
        for check in failures:
            self._metrics.rejected(check)
        if failures:
            raise RequestRefusedError(
                outcome=Outcome.WATCHDOG,
                status=500,
                code="image_broken",
                message=f"the model made a broken image ({failures[0]}); it is not delivered",
            )
        return Answer(images, job.work.batch_sizes, job.work)

    def _generate(self, job: Job) -> list[Images]:
        pending = deque(batches(job, self._max_batch_size))
        images: list[Images] = []
        while pending:
            batch = pending.popleft()
            made, phase = self._attempt(batch, job)
            # Outside of the handler: while it lasts, the exception keeps the tensors alive.
            if made is not None:
                images.append(made)
            elif phase is not None:
                if len(batch) == 1:
                    raise DeviceMemoryError(phase)
                job.work.splits += 1
                pending.extendleft(reversed(batch.halves()))
        return images

    def _attempt(self, batch: Batch, job: Job) -> tuple[Images | None, OomPhase | None]:
        work = job.work
        began = self._engine.busy_clock()
        try:
            made = self._engine.generate(batch, should_stop=lambda: self._should_stop(job))
        except DeviceMemoryError as error:
            phase = error.phase
        else:
            work.batch_sizes.append(len(batch))
            work.stages.append(made.stages)
            work.steps.extend(made.steps)
            return made.images, None
        finally:
            seconds = self._engine.busy_clock() - began
            work.busy_seconds += seconds
        work.wasted_seconds += seconds
        work.ooms.append(phase)
        return None, phase

    @staticmethod
    def _should_stop(job: Job) -> bool:
        return job.abandoned.is_set() or time.monotonic() > job.deadline


def _given_up(job: Job) -> RequestRefusedError:
    if job.abandoned.is_set():
        return RequestRefusedError(
            outcome=Outcome.CANCELLED, status=499, code="cancelled", message="the client went away"
        )
    return RequestRefusedError(
        outcome=Outcome.TIMEOUT,
        status=504,
        code="deadline_exceeded",
        message="the image was not ready in time; ask for less, or try again later",
    )


def _internal_error() -> RequestRefusedError:
    return RequestRefusedError(
        outcome=Outcome.ERROR,
        status=500,
        code="internal_error",
        message="the image could not be made; the server's log says why",
    )
