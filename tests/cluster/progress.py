"""Showing what goes on: steps side by side, live on a terminal and in plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tests.cluster.paths import cache_root

# A plain log says that a long step is alive this often, in seconds.
_HEARTBEAT = 60.0
_MARKS = {"running": "·", "done": "✓", "failed": "✗"}
_STYLES = {"running": "cyan", "done": "green", "failed": "red"}


def duration(seconds: float) -> str:
    """Write a time for people: ``7.3 s``, ``48 s`` or ``4 min 12 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


@dataclass
class Step:
    """One thing under way.

    Attributes
    ----------
    title
        What it is, for people.
    key
        What its duration is remembered under; empty for a step without an estimate.
    estimate
        How long it is likely to take, in seconds, or None.
    """

    title: str
    key: str = ""
    estimate: float | None = None
    state: str = "running"
    detail: str = ""
    result: str = ""
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    last_said: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since it began, or that it took."""
        return (self.ended or time.monotonic()) - self.started

    def say(self, detail: str) -> None:
        """Show a few words on where the step stands; they go when it is over."""
        self.detail = detail

    def conclude(self, result: str) -> None:
        """Say in a few words what came of it; they stay."""
        self.result = result

    def bytes_done(self, done: int, total: int = 0) -> None:
        """Show how much was read or written, in bytes; ``total`` is 0 when unknown."""
        of = f" of {total / 1e6:.0f}" if total else ""
        self.detail = f"{done / 1e6:.0f}{of} MB"

    @property
    def clock(self) -> str:
        """Elapsed time, and the estimate while it still says something."""
        if self.state == "running" and self.estimate and self.estimate > self.elapsed:
            return f"{duration(self.elapsed)} of about {duration(self.estimate)}"
        return duration(self.elapsed)

    @property
    def line(self) -> str:
        """The step in one plain line."""
        words = [f"{_MARKS[self.state]} {self.title}"]
        if said := self.result if self.state == "done" else self.detail:
            words.append(said)
        words.append(self.clock)
        return ", ".join(words)


class Progress:
    """The steps of one command; safe to use from several threads.

    Parameters
    ----------
    stream
        Where to show them; standard error by default, so that output can be piped.
    quiet
        Show nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._console = Console(file=stream or sys.stderr, quiet=quiet, highlight=False)
        self._steps: list[Step] = []
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._durations = _Durations(cache_root() / "durations.json")
        self._stop = threading.Event()
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=8, transient=True)
            self._live.__enter__()
        else:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def say(self, line: str) -> None:
        """Show a line that is no step."""
        self._console.print(Text(line))

    @contextlib.contextmanager
    def step(self, title: str, *, key: str = "", estimate: float | None = None) -> Iterator[Step]:
        """Show a step for as long as the block runs.

        Parameters
        ----------
        title
            What it is.
        key
            Name under which its duration is remembered as the next estimate.
        estimate
            Seconds it is likely to take when nothing is remembered.
        """
        step = Step(title, key, self._durations.get(key, estimate))
        with self._lock:
            self._steps.append(step)
        if self._live is None and step.estimate and step.estimate > _HEARTBEAT / 4:
            self._console.print(Text(f"· {title} (about {duration(step.estimate)})"))
        try:
            yield step
        except BaseException:
            self._finish(step, "failed")
            raise
        self._finish(step, "done")
        if key:
            self._durations.put(key, step.elapsed)

    def _finish(self, step: Step, state: str) -> None:
        step.ended = time.monotonic()
        step.state = state
        with self._lock:
            self._steps.remove(step)
        self._console.print(Text(step.line, style=_STYLES[state] if self._live else ""))

    def _beat(self) -> None:
        while not self._stop.wait(1):
            with self._lock:
                due = [s for s in self._steps if time.monotonic() - s.last_said > _HEARTBEAT]
            for step in due:
                step.last_said = time.monotonic()
                self._console.print(Text(step.line))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the steps that are under way, one per row."""
        table = Table.grid(padding=(0, 1))
        with self._lock:
            for step in self._steps:
                table.add_row(
                    self._spinner.render(console.get_time()),
                    Text(step.title, style="bold"),
                    Text(step.detail, style="dim"),
                    Text(step.clock, style="cyan"),
                )
        yield table


class _Durations:
    """How long steps took last time on this machine, in seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            self._known = {str(k): float(v) for k, v in json.loads(path.read_text()).items()}

    def get(self, key: str, default: float | None) -> float | None:
        return self._known.get(key, default)

    def put(self, key: str, seconds: float) -> None:
        with self._lock:
            self._known[key] = round(seconds, 1)
            with contextlib.suppress(OSError):  # a read-only cache costs only the estimate
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(json.dumps(self._known, sort_keys=True))
