"""A request on its way through the server."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from imagegen.contract import Outcome
from imagegen.engines.base import Picture
from imagegen.errors import RequestRefusedError
from imagegen.server.metrics import Work
from imagegen.server.validation import ImageRequest

__all__ = ["Job", "Made", "draining", "given_up"]


@dataclass(frozen=True)
class Made:
    """A finished picture and how it came about.

    Rounding depends on the size of the batch and on the place in it: with both, and its prompt,
    seed and settings, a picture can be made again bit for bit.
    """

    picture: Picture
    batch_size: int
    batch_index: int
    degraded: tuple[str, ...] = ()


@dataclass(eq=False)
class Job:
    """An admitted request; times are of the monotonic clock, in seconds.

    Its pictures are made in one or several batches. What changes is guarded by the lock of
    :class:`imagegen.server.admission.Admission`, except the work and the pictures: those belong to
    the worker until the job is finished.
    """

    request: ImageRequest
    seeds: tuple[int, ...]
    arrived: float
    deadline: float
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[Made]]
    identity: str = ""
    """What the log and the answer's header `X-Request-Id` know it by."""
    picture_seconds: float = 0.0
    """What one of its pictures is estimated to take of the engine's time."""
    work: Work = field(default_factory=Work)
    made: dict[int, Made] = field(default_factory=dict)
    failure: RequestRefusedError | None = None
    left: Outcome | None = None
    """Why nobody waits for it any more: ``cancelled`` or ``timeout``."""
    started: bool = False
    finished: bool = False

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.seeds)

    @property
    def key(self) -> Hashable:
        """What pictures must have in common with this job's to run in one batch with them."""
        request = self.request
        own = id(self) if request.pinned_batch is not None else None
        return (request.settings, request.negative_prompt is None, own)

    def is_gone(self, now: float) -> bool:
        """Tell whether work on it is in vain."""
        return self.left is not None or self.failure is not None or now > self.deadline

    def succeed(self) -> None:
        """Hand the pictures to the waiting request; may be called from any thread."""
        pictures = [self.made[index] for index in range(self.count)]
        self.loop.call_soon_threadsafe(self._settle, pictures, None)

    def fail(self, error: RequestRefusedError) -> None:
        """Hand an error to the waiting request; may be called from any thread."""
        self.loop.call_soon_threadsafe(self._settle, None, error)

    def _settle(self, pictures: list[Made] | None, error: RequestRefusedError | None) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        elif pictures is not None:
            self.done.set_result(pictures)


def draining() -> RequestRefusedError:
    """Build the refusal of a server that is about to stop."""
    return RequestRefusedError(
        outcome=Outcome.BUSY,
        status=503,
        code="draining",
        message="the server is stopping; send the request again",
        retry_after=1,
    )


def given_up(reason: Outcome) -> RequestRefusedError:
    """Build the refusal of a request for which nobody waits (`cancelled`) or may (`timeout`)."""
    if reason is Outcome.CANCELLED:
        return RequestRefusedError(
            outcome=reason, status=499, code="cancelled", message="the client went away"
        )
    return RequestRefusedError(
        outcome=Outcome.TIMEOUT,
        status=504,
        code="deadline_exceeded",
        message="the image was not ready in time; ask for less, or try again later",
    )
