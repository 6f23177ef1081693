"""What can go wrong, told apart by who can mend it."""

from __future__ import annotations

from imagegen.contract import OomPhase, Outcome, StartupFailureCode

__all__ = [
    "DeviceMemoryError",
    "EngineBrokenError",
    "GenerationCancelledError",
    "ImagegenError",
    "RequestRefusedError",
    "StartupError",
]


class ImagegenError(Exception):
    """Base of all errors of this package; the text is fit for a user."""


class StartupError(ImagegenError):
    """The server cannot start; a restart with the same settings would fail again.

    Parameters
    ----------
    code
        Short reason, the first word of the termination message.
    message
        What is wrong, what is allowed and how to mend it.
    """

    def __init__(self, code: StartupFailureCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RequestRefusedError(ImagegenError):
    """A request that gets an error as its answer.

    Parameters
    ----------
    outcome
        What the request counts as.
    status
        HTTP status code.
    code
        Machine-readable reason in the answer.
    message
        What is wrong and what is allowed.
    param
        The field of the request that is to blame, if one is.
    retry_after
        Seconds after which a new try makes sense, if that is known.
    """

    def __init__(
        self,
        *,
        outcome: Outcome,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after


class DeviceMemoryError(ImagegenError):
    """The device (or the host's allocator) had no memory for the batch; the engine is usable."""

    def __init__(self, phase: OomPhase) -> None:
        super().__init__(f"out of memory in the phase {phase}")
        self.phase = phase


class GenerationCancelledError(ImagegenError):
    """The generation was given up at a step boundary because nobody waits for it any more."""


class EngineBrokenError(ImagegenError):
    """The device is in a state that only a new process can mend."""
