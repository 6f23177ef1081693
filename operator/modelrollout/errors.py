"""What can go wrong, in the three ways that call for different answers.

Every error carries a reason and a message fit for a condition.
"""

from __future__ import annotations

__all__ = ["Conflict", "Invalid", "RolloutError", "Transient"]


class RolloutError(Exception):
    """Base of all errors that the operator raises on purpose.

    Parameters
    ----------
    reason
        CamelCase word, fit for ``condition.reason``.
    message
        A sentence for people: what happened, and how to mend it where that is known.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Invalid(RolloutError):
    """The declared state cannot be used; only its author can mend it."""


class Transient(RolloutError):
    """A dependency did not answer; the same step is worth another try."""


class Conflict(RolloutError):
    """Somebody else wrote, or owns, what this step was about; look again before acting."""
