"""The demo's voice: headings, kubectl's lines, gates, the summary, and clear words on trouble."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from examples.demo.diagnosis import findings
from examples.demo.ground import Ground
from examples.demo.service import Document, Ending, Unexpected
from tests.cluster.handle import Mode
from tests.cluster.paths import links_folder
from tests.cluster.progress import duration

__all__ = ["Narrator"]

_PLAIN_WIDTH: Final = 120
"""Columns of a text that goes into a file or a pipe."""

_VERDICTS: Final = {"Pass": "green", "Fail": "bold red", "Inconclusive": "yellow", "Invalid": "dim"}


class Narrator:
    """Tells the story on standard output."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        width = None if terminal or os.environ.get("COLUMNS") else _PLAIN_WIDTH
        self._console = Console(width=width, highlight=False)
        self._began = time.monotonic()
        self._held: list[Text] | None = None

    def act(self, title: str, text: str) -> None:
        """Begin an act."""
        self._heading(title)
        self.say(text)

    def say(self, text: str) -> None:
        """Say something, wrapped at the terminal's width."""
        self._lines(textwrap.wrap(text, self._console.width))

    def command(self, *words: str) -> None:
        """Show a command that is run now; lines of the watch wait until its output is shown."""
        self._began = time.monotonic()
        self._held = []
        self._console.print()
        self._console.print(Text(f"$ {shlex.join(words)}", style="bold"), soft_wrap=True)

    def output(self, text: str) -> None:
        """Show what a command printed."""
        self._console.print(Text(text), soft_wrap=True)
        held, self._held = self._held or [], None
        for line in held:
            self._console.print(line, soft_wrap=True)

    def watched(self, line: str) -> None:
        """Show a line of a watch, with the time since the last command."""
        clock = f"{time.monotonic() - self._began:6.1f} s  "
        shown = Text(clock, style="cyan") + Text(line)
        if self._held is not None:
            self._held.append(shown)
        else:
            self._console.print(shown, soft_wrap=True)

    def ending(self, ending: Ending) -> None:
        """Tell how an attempt ended: verdicts of all gates, the reason, the times."""
        record, status = ending.record, ending.status
        gates = status.get("gates", [])
        if gates and any(gate.get("requests") for gate in gates):
            self._table(_gates(gates))
        good = record["outcome"] == "Promoted"
        said = dict.fromkeys((record["outcome"], record["reason"]))
        mark = Text("=> ", style="bold") + Text(
            f"{': '.join(said)}, after {duration(ending.seconds)}",
            style="bold green" if good else "bold red",
        )
        self._console.print(mark)
        self.point(record["message"])
        if ending.took_milliseconds is not None:
            carried = "and the tested pod serves" if good else "candidate out and stable verified"
            self.point(f"from decision to done, {carried}: {ending.took_milliseconds} ms")

    def point(self, text: str) -> None:
        """Add a line below an ending."""
        indent = " " * 3
        self._lines(
            textwrap.wrap(
                text, self._console.width, initial_indent=indent, subsequent_indent=indent
            )
        )

    def summary(self, rows: Sequence[tuple[str, str, str, str, str]]) -> None:
        """Show all steps in one table: file, outcome, reason, time, decision to done."""
        self._heading("Summary")
        table = _empty_table()
        for name in ("applied", "outcome", "reason", "in all", "decision to done"):
            numeric = name in {"in all", "decision to done"}
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._table(table)

    def farewell(self, ground: Ground, pictures: Path, seconds: float) -> None:
        """Say where the pictures are, what to try next, and how to end it."""
        where = f"-n {ground.namespace}"
        revision = "$(kubectl get mro campaign-images {} -o jsonpath={{.status.{}.revision}})"
        annotate = f"kubectl annotate mro campaign-images {where} --overwrite"
        lines = [
            *_environment(ground),
            f"kubectl get mro {where}",
            f"kubectl describe mro campaign-images {where}",
            "# try the rejected model again, and abort it while it is on trial:",
            f"{annotate} modelrollout.dev/retry={revision.format(where, 'rejected')}",
            f"{annotate} modelrollout.dev/abort={revision.format(where, 'candidate')}",
            "# back to the model that spells:",
            f"kubectl apply {where} -f examples/demo/2-good.yaml",
            "# end it:",
            *_ends(ground),
        ]
        self.say(f"What the models served, side by side: {_home(pictures)}")
        self.say(f"All of it took {duration(seconds)}. The cluster stays up; try:")
        self._console.print()
        for line in lines:
            self._console.print(Text(f"  {line}"), soft_wrap=True)

    def _heading(self, title: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left", style="dim"))

    def _lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)

    def _table(self, table: Table) -> None:
        """Show a table between two empty lines, without blanks at the ends of its lines."""
        with self._console.capture() as captured:
            self._console.print(table)
        shown = "\n".join(line.rstrip() for line in captured.get().splitlines())
        self._console.print(Text.from_ansi(f"\n{shown}\n"), soft_wrap=True)

    def problem(self, message: str) -> None:
        """Show an error in one message."""
        error = Console(stderr=True, highlight=False)
        said = Text("The demo cannot go on. ", style="bold red") + Text(message)
        error.print(said, soft_wrap=True)

    def surprise(self, surprise: Unexpected) -> None:
        """Show what was seen when a step ended other than expected."""
        error = Console(stderr=True, highlight=False)
        said = Text("Not as expected: ", style="bold red") + Text(str(surprise))
        error.print(said, soft_wrap=True)
        for heading, text in findings(surprise.service):
            error.print(Text(f"\n--- {heading}", style="bold"))
            error.print(Text(text), soft_wrap=True)
        error.print(
            "\nThe cluster stays up to be looked at. A machine that is busy with other things can "
            "be the reason: `make demo` starts over.",
            soft_wrap=True,
        )

    def interrupted(self, ground: Ground | None) -> None:
        """Say what an interruption left."""
        self._console.print()
        if ground is None:
            self.say(
                "Interrupted while setting up. `make demo` goes on from what is done; "
                "`make demo-down` removes what was begun."
            )
        else:
            self.say("Interrupted. The cluster stays up: `make demo` starts the story over, or:")
            for line in _ends(ground):
                self._console.print(Text(f"  {line}"), soft_wrap=True)


def _empty_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _gates(gates: Sequence[Document]) -> Table:
    table = _empty_table()
    for name in ("gate", "verdict", "requests", "estimate", "interval", "limit"):
        table.add_column(
            name, justify="right" if name == "requests" else "left", no_wrap=name == "verdict"
        )
    for gate in gates:
        verdict = gate["verdict"]
        table.add_row(
            Text(gate["name"]),
            Text(verdict, style=_VERDICTS.get(verdict, "")),
            str(gate.get("requests", "")),
            *(Text(gate.get(key, "")) for key in ("estimate", "interval", "limit")),
        )
    return table


def _environment(ground: Ground) -> list[str]:
    if ground.cluster.mode is Mode.EXISTING:
        return []
    return [
        f"export KUBECONFIG={_home(ground.cluster.kubeconfig)}",
        f"export PATH={_home(links_folder())}:$PATH",
    ]


def _ends(ground: Ground) -> list[str]:
    if ground.cluster.mode is not Mode.EXISTING:
        return ["make demo-down"]
    return [
        f"kubectl delete modelrollouts --all -n {ground.namespace}",
        f"kubectl delete namespace {ground.namespace}",
        "helm uninstall modelrollout -n modelrollout-system",
        "kubectl delete crd modelrollouts.modelrollout.dev",
    ]


def _home(path: Path) -> str:
    """Write a path with ~ where that is shorter."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
