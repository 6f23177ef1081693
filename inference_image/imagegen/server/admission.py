"""The bounded queue in front of the worker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from imagegen.contract import Outcome
from imagegen.engines.base import GenerationSettings
from imagegen.errors import RequestRefusedError
from imagegen.server.batching import BatchQueue, Overlap, Slot
from imagegen.server.costs import CostModel
from imagegen.server.jobs import Job, draining
from imagegen.server.oom import MemoryLimits

__all__ = ["Admission", "Bounds"]


@dataclass(frozen=True)
class Bounds:
    """How much may wait, and how long one request waits for others to run with it.

    Parameters
    ----------
    requests
        Requests that may wait; those in the worker's hands are not among them.
    seconds
        Estimated seconds of the engine that all accepted work together may take.
    window_seconds
        Longest wait for company, counted from the arrival of a batch's oldest request.
    """

    requests: int
    seconds: float
    window_seconds: float = 0.0


class Admission:
    """Says no to what it cannot serve in time; hands out batches, first in, first out.

    Parameters
    ----------
    bounds
        How much may wait.
    costs
        Estimates what requests take; the worker teaches it.
    limits
        The largest batches to form; the worker teaches them.
    clock
        Gives monotonic seconds.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        costs: CostModel,
        limits: MemoryLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds = bounds
        self._overlap = Overlap()
        self._costs = costs
        self._limits = limits
        self._clock = clock
        self._queue: BatchQueue[Job] = BatchQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._in_hands: tuple[Job, ...] = ()
        self._hands_free_at = 0.0

    # -- requests ----------------------------------------------------------------------------------
    def open_changed(self, open_requests: int) -> None:
        """Note how many requests are open, from the first byte to the end of the answer."""
        with self._changed:
            self._overlap.changed(self._clock(), open_requests)

    def put(self, job: Job) -> None:
        """Queue a job.

        A server that has nothing to do takes whatever the rules allow, however long it is thought
        to take: an estimate that is too high would otherwise never be put right.

        Raises
        ------
        RequestRefusedError
            Status 429 with a hint when to come back if too much waits already or the job would not
            be ready by its deadline; 503 after :meth:`close`.
        """
        with self._changed:
            if self._closed:
                raise draining()
            now = self._clock()
            job.picture_seconds = self._picture_seconds(job)
            backlog = self._backlog(now)
            ready_in = backlog + job.picture_seconds * job.count
            if len(self._queue) >= self.bounds.requests:
                wait = max(backlog, job.picture_seconds) / (len(self._queue) + 1)
                raise _busy(f"{self.bounds.requests} requests wait already", "queue_full", wait)
            room = min(self.bounds.seconds, job.deadline - now)
            if backlog > 0 and ready_in > room:
                late = room < self.bounds.seconds
                raise _busy(
                    f"the image would take {ready_in:.1f} s, longer than the request may"
                    if late
                    else f"the work that waits takes {backlog:.1f} s",
                    "deadline_unreachable" if late else "queue_full",
                    min(backlog, ready_in - room),
                )
            self._queue.add(job)
            self._changed.notify()

    def leave(self, job: Job, reason: Outcome) -> bool:
        """Give a job up because nobody waits for it any more.

        Returns
        -------
        bool
            True if nothing of it was ever begun, or nothing is under way: the caller counts it.
            False if the worker has it in its hands, which counts it at the next step, or if it is
            finished.
        """
        with self._changed:
            if job.finished:
                return False
            job.left = reason
            self._queue.remove(job)
            self._changed.notify()
            if job in self._in_hands:
                return False
            job.finished = True
            return True

    # -- the worker --------------------------------------------------------------------------------
    def take(self) -> list[Slot[Job]]:
        """Wait for the next batch; it is empty when the queue is closed and empty."""
        with self._changed:
            while True:
                batch = self._queue.next_batch(self._most)
                if not batch and self._closed:
                    return []
                wait = self._wait_for_company(batch) if batch else None
                if wait == 0.0:
                    return self._hand_out()
                self._changed.wait(wait)

    def give_back(self) -> list[Job]:
        """Take note that the worker is through with its batch.

        Returns
        -------
        list of Job
            Those that are now finished, well or not; they are not handed out again.
        """
        with self._changed:
            finished = []
            for job in self._in_hands:
                if len(job.made) < job.count and job.is_gone(self._clock()):
                    self._queue.remove(job)
                    if job.failure is None and job.left is None:
                        job.left = Outcome.TIMEOUT
                if not job.finished and not self._queue.waiting(job):
                    job.finished = True
                    finished.append(job)
            self._in_hands = ()
            return finished

    def learn(
        self,
        settings: GenerationSettings,
        pictures: int,
        seconds: float,
        stages: Mapping[str, float],
    ) -> None:
        """Learn from a batch that was made; see :meth:`CostModel.observe`."""
        with self._changed:
            self._costs.observe(settings, pictures, seconds, stages)

    def close(self) -> None:
        """Accept no more jobs; those that wait are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def give_up(self, error: RequestRefusedError) -> list[Job]:
        """Tell all that wait, and those in the worker's hands, that they will not be served.

        Returns
        -------
        list of Job
            All of them; the worker counts none of them any more.
        """
        with self._changed:
            jobs = {id(job): job for job in (*self._in_hands, *self._queue)}
            unserved = [job for job in jobs.values() if not job.finished]
            for job in unserved:
                self._queue.remove(job)
                job.failure = error
                job.finished = True
                job.fail(error)
            self._changed.notify_all()
            return unserved

    # -- what is told ------------------------------------------------------------------------------
    def depth(self) -> int:
        """Give the number of requests that wait."""
        with self._changed:
            return len(self._queue)

    def backlog_seconds(self) -> float:
        """Estimate how long the engine needs for all accepted work."""
        with self._changed:
            return self._backlog(self._clock())

    # -- inside, under the lock --------------------------------------------------------------------
    def _most(self, job: Job) -> int:
        return job.request.pinned_batch or self._limits.largest(job.request.settings)

    def _picture_seconds(self, job: Job) -> float:
        """Estimate a picture's share, with its part of what a pinned batch is filled up with."""
        pinned = job.request.pinned_batch
        pictures = math.ceil(job.count / pinned) * pinned if pinned else job.count
        return self._costs.estimate(job.request.settings, pictures) / job.count

    def _backlog(self, now: float) -> float:
        waiting = sum(job.picture_seconds * pictures for job, pictures in self._queue.left())
        in_hands = max(0.0, self._hands_free_at - now) if self._in_hands else 0.0
        return waiting + in_hands

    def _wait_for_company(self, batch: Sequence[Slot[Job]]) -> float:
        """Give the seconds to wait before a batch is handed out as it is; 0 for at once."""
        head = batch[0].owner
        now = self._clock()
        if (
            self._closed
            or head.started
            or head.request.pinned_batch is not None
            or len(batch) >= self._most(head)
            or self._overlap.peak(now) <= len(self._queue)
        ):
            return 0.0
        return max(0.0, head.arrived + self.bounds.window_seconds - now)

    def _hand_out(self) -> list[Slot[Job]]:
        batch = self._queue.take(self._most)
        self._in_hands = tuple({id(slot.owner): slot.owner for slot in batch}.values())
        self._hands_free_at = self._clock() + sum(slot.owner.picture_seconds for slot in batch)
        return batch


def _busy(what: str, code: str, wait: float) -> RequestRefusedError:
    seconds = max(1, math.ceil(wait))
    return RequestRefusedError(
        outcome=Outcome.BUSY,
        status=429,
        code=code,
        message=f"{what}; try again in {seconds} s",
        retry_after=seconds,
    )
