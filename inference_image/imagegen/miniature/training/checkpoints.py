"""States of trainings on disk, from which they go on after an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch

__all__ = ["Checkpoint"]

_INTERVAL: Final = 60.0
"""Seconds between two savings."""


class Checkpoint:
    """The state of one stage of a training: a file that is replaced whole.

    It is saved now and then, and at the end of a ``with`` block, be it an interruption.

    Parameters
    ----------
    path
        The file; the parts take its state if there is one.
    parts
        What has a ``state_dict`` and ``load_state_dict``, by name.

    Attributes
    ----------
    step
        How many steps are done.
    """

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self._path, self._parts = path, parts
        self._saved = time.monotonic()
        self.step = self._restore()

    def _restore(self) -> int:
        if not self._path.exists():
            return 0
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
        return int(state["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._save()

    def advance(self) -> None:
        """Count a step; save the state if the last saving is long enough ago."""
        self.step += 1
        if time.monotonic() - self._saved >= _INTERVAL:
            self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save({"step": self.step, "parts": parts}, fresh)
        fresh.replace(self._path)
        self._saved = time.monotonic()
