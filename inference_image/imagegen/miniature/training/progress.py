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
    interval
        Seconds between reports.
    """

    def __init__(
        self, stage: str, total: int, *, start: int, record: Path, interval: float = 15.0
    ) -> None:
        self._stage, self._total, self._start = stage, total, start
        self._record, self._interval = record, interval
        self._began = self._reported = time.monotonic()
        self._processor_began = time.process_time()
        self._loss: float | None = None
        self._step = start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._report()

    def advance(self, loss: float) -> None:
        """Count a step whose loss was `loss`."""
        self._step += 1
        kept = _SMOOTHING if self._loss is not None else 0.0
        self._loss = kept * (self._loss or 0.0) + (1 - kept) * loss
        if time.monotonic() - self._reported >= self._interval:
            self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        done = self._step - self._start
        if done == 0 or self._loss is None:
            return
        seconds = self._reported - self._began
        left = seconds / done * (self._total - self._step)
        share = _PERCENT * self._step // self._total
        sys.stderr.write(
            f"{self._stage} {self._step}/{self._total} {share} % loss {self._loss:.4f} "
            f"{seconds / done:.2f} s/step, {left / 60:.1f} min left\n"
        )
        sys.stderr.flush()
        line = {
            "stage": self._stage,
            "step": self._step,
            "loss": round(self._loss, 5),
            "seconds": round(seconds, 1),
            "processor_seconds": round(time.process_time() - self._processor_began, 1),
        }
        with self._record.open("a") as file:
            file.write(json.dumps(line) + "\n")
