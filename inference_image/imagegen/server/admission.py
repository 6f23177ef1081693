"""The bounded queue in front of the worker."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from dataclasses import dataclass, field

from imagegen.contract import Outcome
from imagegen.engines.base import Images
from imagegen.errors import RequestRefusedError
from imagegen.server.metrics import Work
from imagegen.server.validation import ImageRequest

__all__ = ["Admission", "Answer", "Job"]

_SMOOTHING = 0.2


@dataclass(frozen=True)
class Answer:
    """What the worker made of a job."""

    images: list[Images]
    batch_sizes: list[int]
    work: Work


@dataclass
class Job:
    """A request on its way through the server; times are of the monotonic clock, in seconds."""

    request: ImageRequest
    seeds: tuple[int, ...]
    arrived: float
    deadline: float
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Answer]
    work: Work = field(default_factory=Work)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def succeed(self, answer: Answer) -> None:
        """Hand the answer to the waiting request; called by the worker."""
        self.loop.call_soon_threadsafe(self._settle, answer, None)

    def fail(self, error: Exception) -> None:
        """Hand an error to the waiting request; called by the worker."""
        self.loop.call_soon_threadsafe(self._settle, None, error)

    def _settle(self, answer: Answer | None, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif answer is not None:
            self.done.set_result(answer)


class Admission:
    """A first-in, first-out queue that says no when it is full.

    Parameters
    ----------
    capacity
        Jobs that may wait; the one in the worker's hands is not among them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._taken: Job | None = None
        self._mean_seconds = 1.0

    def put(self, job: Job) -> None:
        """Queue a job.

        Raises
        ------
        RequestRefusedError
            Status 429 with a hint when to come back if the queue is full, 503 after :meth:`close`.
        """
        with self._changed:
            if self._closed:
                raise draining()
            if len(self._jobs) >= self.capacity:
                wait = math.ceil(self._mean_seconds * (len(self._jobs) + 1))
                raise RequestRefusedError(
                    outcome=Outcome.BUSY,
                    status=429,
                    code="queue_full",
                    message=f"{self.capacity} requests wait already; try again in {wait} s",
                    retry_after=max(1, wait),
                )
            self._jobs.append(job)
            self._changed.notify()

    def take(self) -> Job | None:
        """Wait for the next job; None when the queue is closed and empty."""
        with self._changed:
            self._taken = None
            self._changed.wait_for(lambda: self._jobs or self._closed)
            self._taken = self._jobs.popleft() if self._jobs else None
            return self._taken

    def discard(self, job: Job) -> bool:
        """Take a job out of the queue; False if the worker has it already."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def close(self) -> None:
        """Accept no more jobs; those that wait are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def give_up(self) -> list[Job]:
        """Tell all that wait, and the one in the worker's hands, that they will not be served.

        Returns
        -------
        list of Job
            Those that the worker never saw and will not count.
        """
        with self._changed:
            waiting = list(self._jobs)
            self._jobs.clear()
            for job in [*waiting, *([self._taken] if self._taken else [])]:
                job.abandoned.set()
                job.fail(draining())
            return waiting

    def worked(self, seconds: float) -> None:
        """Learn how long a job takes, for the hint that refused requests get."""
        with self._changed:
            self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def depth(self) -> int:
        """Give the number of jobs that wait."""
        return len(self._jobs)


def draining() -> RequestRefusedError:
    """Build the refusal of a server that is about to stop."""
    return RequestRefusedError(
        outcome=Outcome.BUSY,
        status=503,
        code="draining",
        message="the server is stopping; send the request again",
        retry_after=1,
    )
