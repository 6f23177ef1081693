"""States of trainings on disk, from which they go on after an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import torch

__all__ = ["Checkpoint"]

_INTERVAL: Final = 60.0


class Checkpoint:
    """The state of one stage of a training: a file that is replaced whole.

    Parameters
    ----------
    path
        The file.
    parts
        What has a ``state_dict`` and ``load_state_dict``, by name.
    interval
        Seconds between two savings.
    """

    def __init__(self, path: Path, parts: dict[str, Any], *, interval: float = _INTERVAL) -> None:
        self._path, self._parts, self._interval = path, parts, interval
        self._saved = time.monotonic()

    def restore(self) -> int:
        """Give the parts the state that was saved, and the number of steps it had done; else 0."""
        if not self._path.exists():
            return 0
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        return int(state["step"])

    def offer(self, step: int) -> None:
        """Save the state after `step` steps if the last saving is long enough ago."""
        if time.monotonic() - self._saved >= self._interval:
            self.save(step)

    def save(self, step: int) -> None:
        """Save the state after `step` steps."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save({"step": step, "parts": parts}, fresh)
        fresh.replace(self._path)
        self._saved = time.monotonic()
