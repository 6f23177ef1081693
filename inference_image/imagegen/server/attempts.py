"""One batch on the engine: attempts, splits, and who bears what they took."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from imagegen.contract import OomPhase, Outcome
from imagegen.engines.base import Batch, Engine, Generated
from imagegen.errors import (
    DeviceMemoryError,
    EngineBrokenError,
    GenerationCancelledError,
    RequestRefusedError,
)
from imagegen.server.admission import Admission
from imagegen.server.batching import Slot
from imagegen.server.jobs import Job, Made
from imagegen.server.metrics import ServerMetrics
from imagegen.server.oom import MemoryLimits

__all__ = ["Attempts"]

_LOG = logging.getLogger(__name__)
_SEEDS = 2**32


@dataclass(frozen=True)
class _Part:
    """Pictures of one engine call; all of them have the same settings."""

    slots: tuple[Slot[Job], ...]
    tiled: bool = False

    def __str__(self) -> str:
        settings = self.slots[0].owner.request.settings
        size = f"{settings.width}x{settings.height}"
        requests = ", ".join(job.identity for job in self.jobs)
        return f"{len(self.slots)} x {size} at {settings.steps} steps of requests {requests}"

    @property
    def jobs(self) -> list[Job]:
        return list({id(slot.owner): slot.owner for slot in self.slots}.values())

    def batch(self) -> Batch:
        """Build the engine's batch; a pinned one is filled up with more pictures of its request."""
        first = self.slots[0].owner.request
        pictures = [(slot.owner.request, slot.owner.seeds[slot.index]) for slot in self.slots]
        while len(pictures) < (first.pinned_batch or 0):
            pictures.append((first, (pictures[-1][1] + 1) % _SEEDS))
        settings = first.settings
        requests = [request for request, _ in pictures]
        return Batch(
            tuple(request.prompt for request in requests),
            tuple(seed for _, seed in pictures),
            replace(settings, tiled_decoding=True) if self.tiled else settings,
            tuple(request.negative_prompt for request in requests),
            tuple(request.source for request in requests if request.source is not None),
        )

    def pieces(self, most: int) -> list[_Part]:
        """Cut into parts of at most so many pictures."""
        return [
            _Part(self.slots[start : start + most], self.tiled)
            for start in range(0, len(self.slots), most)
        ]


@dataclass(frozen=True)
class _Trouble:
    """Why an attempt made no pictures: out of memory in a phase, refused, or given up."""

    phase: OomPhase | None = None
    refusal: RequestRefusedError | None = None
    may_be_of_one: bool = False
    """Whether a single request of several may be to blame for the refusal."""

    @property
    def reason(self) -> str:
        return "oom" if self.phase is not None else "error"


class Attempts:
    """Makes the pictures of batches and notes on each job what became of it.

    A batch that does not fit is split in halves; so is one of several requests that fails, unless
    the engine says why: one that cannot be served harms no other. A single picture that does not
    fit is tried once more with its decoding in tiles, if it was the decoding that did not.

    Parameters
    ----------
    engine
        Used by the calling thread alone.
    admission
        Learns what batches cost.
    limits
        Learns what fits.
    metrics
        Where batches, splits and lack of memory are counted.
    beat
        Called before every attempt and at every step.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        admission: Admission,
        limits: MemoryLimits,
        metrics: ServerMetrics,
        beat: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._limits = limits
        self._metrics = metrics
        self._beat = beat
        self.single_ooms = 0
        """Single pictures in a row for which there was no memory, with nothing made in between."""

    def run(self, slots: Sequence[Slot[Job]]) -> None:
        """Make pictures that run together.

        Raises
        ------
        EngineBrokenError
            If the engine needs a new process; all jobs of the batch have been failed.
        """
        pending = deque([_Part(tuple(slots))])
        ooms: list[tuple[OomPhase, _Part]] = []
        try:
            while pending:
                part = self._without_gone(pending.popleft())
                if not part.slots:
                    continue
                pieces = self._pieces_that_fit(part)
                if len(pieces) > 1:
                    pending.extendleft(reversed(pieces))
                    continue
                part = pieces[0]
                trouble = self._attempt(part)
                # Outside of the handler: while it lasts, the exception keeps the tensors alive.
                if trouble is None:
                    continue
                if trouble.phase is not None:
                    _LOG.warning("out of memory in phase %s: %s", trouble.phase, part)
                    ooms.append((trouble.phase, part))
                pending.extendleft(reversed(self._after(part, trouble)))
        except EngineBrokenError:
            self._fail(_Part(tuple(slots)), _internal_error())
            raise
        finally:
            for phase, part in ooms:
                lost = any(_is_oom(job.failure) for job in part.jobs)
                self._metrics.ran_out_of_memory(phase, recovered=not lost)

    def _pieces_that_fit(self, part: _Part) -> list[_Part]:
        request = part.slots[0].owner.request
        if request.pinned_batch is not None:
            return [part]
        if self._limits.needs_tiles(request.settings):
            part = replace(part, tiled=True)
        return part.pieces(self._limits.largest(request.settings))

    def _attempt(self, part: _Part) -> _Trouble | None:
        """Call the engine once; share what it took among the jobs."""
        batch = part.batch()
        made: Generated | None = None
        trouble: _Trouble | None = None
        self._beat()
        began, busy_before = time.perf_counter(), self._engine.busy_clock()
        try:
            made = self._engine.generate(batch, should_stop=lambda: self._should_stop(part))
        except EngineBrokenError as error:
            _LOG.critical("the device needs a new process: %s", error)
            raise
        except GenerationCancelledError:
            trouble = _Trouble()
        except DeviceMemoryError as error:
            trouble = _Trouble(phase=error.phase)
        except RequestRefusedError as error:
            trouble = _Trouble(refusal=_without_frames(error))
        except Exception:  # noqa: BLE001 - it becomes the answer of the request that is to blame
            _LOG.exception("generation failed: %s", part)
            trouble = _Trouble(refusal=_internal_error(), may_be_of_one=True)
        else:
            self._finish(part, batch, made, time.perf_counter() - began)
        finally:
            seconds = self._engine.busy_clock() - busy_before
            reason = None if trouble is None else trouble.reason
            for slot, share in zip(part.slots, _shares(part, made), strict=True):
                slot.owner.work.took(seconds * share, wasted=reason)
        return trouble

    def _finish(self, part: _Part, batch: Batch, made: Generated, seconds: float) -> None:
        self.single_ooms = 0
        if part.tiled and not self._limits.needs_tiles(batch.settings):
            self._limits.tiles_helped(batch.settings)
        else:
            self._limits.fitted(batch.settings, len(batch))
        if not made.refused:  # which may have taken no time
            self._admission.learn(batch.settings, len(batch), seconds, made.stages)
        self._metrics.made_batch(len(batch), made.stages, made.steps)
        degraded = ("tiled",) if part.tiled else ()
        for place, slot in enumerate(part.slots):
            if place in made.refused:
                slot.owner.failure = slot.owner.failure or _without_frames(made.refused[place])
            else:
                ran = (1, 0) if self._engine.is_remote else (len(batch), place)
                slot.owner.made[slot.index] = Made(made.images[place], *ran, degraded)

    def _after(self, part: _Part, trouble: _Trouble) -> list[_Part]:
        """Decide what to try next; nothing when the part is given up."""
        if trouble.phase is not None:
            return self._after_oom(part, trouble.phase)
        if trouble.may_be_of_one and len(part.jobs) > 1:
            self._metrics.split("error")
            return part.pieces((len(part.slots) + 1) // 2)
        # Nobody waits for what was given up; should somebody, an error is better than no answer.
        self._fail(self._without_gone(part), trouble.refusal or _internal_error())
        return []

    def _after_oom(self, part: _Part, phase: OomPhase) -> list[_Part]:
        request = part.slots[0].owner.request
        if request.pinned_batch is not None:
            self._fail(part, _no_memory(f"a batch of {request.pinned_batch} such images"))
            return []
        self._limits.failed(request.settings, len(part.slots))
        if len(part.slots) > 1:
            self._metrics.split("oom")
            return part.pieces((len(part.slots) + 1) // 2)
        if phase is OomPhase.DECODE and self._engine.can_tile and not part.tiled:
            return [replace(part, tiled=True)]
        self.single_ooms += 1
        self._fail(part, _no_memory("one such image"))
        return []

    def _should_stop(self, part: _Part) -> bool:
        self._beat()
        now = time.monotonic()
        return all(job.is_gone(now) for job in part.jobs)

    @staticmethod
    def _without_gone(part: _Part) -> _Part:
        now = time.monotonic()
        return replace(part, slots=tuple(x for x in part.slots if not x.owner.is_gone(now)))

    @staticmethod
    def _fail(part: _Part, refusal: RequestRefusedError) -> None:
        for job in part.jobs:
            if job.failure is None and len(job.made) < job.count:
                job.failure = refusal


def _shares(part: _Part, made: Generated | None) -> list[float]:
    """Give the parts of the busy time that the pictures asked for bear; together they are 1."""
    count = len(part.slots)
    shares = list(made.shares)[:count] if made is not None else []
    total = sum(shares)
    return [share / total for share in shares] if total else [1 / count] * count


def _is_oom(refusal: RequestRefusedError | None) -> bool:
    return refusal is not None and refusal.outcome is Outcome.OOM


def _without_frames(error: RequestRefusedError) -> RequestRefusedError:
    """Let go of what the frames that an error came through keep alive."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _no_memory(what: str) -> RequestRefusedError:
    return RequestRefusedError(
        outcome=Outcome.OOM,
        status=503,
        code="gpu_out_of_memory",
        message=f"no memory for {what}; ask for a smaller size",
    )


def _internal_error() -> RequestRefusedError:
    return RequestRefusedError(
        outcome=Outcome.ERROR,
        status=500,
        code="internal_error",
        message="the image could not be made; the server's log says why",
    )
