"""How far a training is: a line with the loss and the time left, and a record to plot."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Progress"]

_SMOOTHING: Final = 0.98
_PERCENT: Final = 100
_INTERVAL: Final = 15.0
"""Seconds between two lines for a person to read."""

_RECORDS: Final = 200
"""Lines of the record per training."""


class Progress:
    """Reports a training of known length.

    Parameters
    ----------
    stage
        What is trained, in one word.
    total
        Steps of the whole training.
    start
        Steps that an earlier run has done.
    record
        File of JSON lines to append the loss to.
    """

    def __init__(self, stage: str, total: int, *, start: int, record: Path) -> None:
        self._stage, self._total, self._start = stage, total, start
        self._record, self._every = record, max(total // _RECORDS, 1)
        self._began = self._reported = time.monotonic()
        self._processor_began = time.process_time()
        self._loss = 0.0
        self._step = start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._step > self._start:
            self._report()

    def advance(self, loss: float, **others: float) -> None:
        """Count a step whose loss was `loss`; `others` are recorded as they are."""
        self._step += 1
        kept = min(_SMOOTHING, 1 - 1 / (self._step - self._start))
        self._loss = kept * self._loss + (1 - kept) * loss
        if self._step % self._every == 0:
            self._note(others)
        if time.monotonic() - self._reported >= _INTERVAL:
            self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        done = self._step - self._start
        seconds = self._reported - self._began
        left = seconds / done * (self._total - self._step)
        share = _PERCENT * self._step // self._total
        sys.stderr.write(
            f"{self._stage} {self._step}/{self._total} {share} % loss {self._loss:.4f} "
            f"{seconds / done:.2f} s/step, {left / 60:.1f} min left\n"
        )
        sys.stderr.flush()

    def _note(self, others: dict[str, float]) -> None:
        seconds = time.monotonic() - self._began
        line = {
            "stage": self._stage,
            "step": self._step,
            "loss": round(self._loss, 5),  # running mean
            "seconds": round(seconds, 1),
            "processor_seconds": round(time.process_time() - self._processor_began, 1),
            **{name: round(value, 5) for name, value in others.items()},
        }
        with self._record.open("a") as file:
            file.write(json.dumps(line) + "\n")
