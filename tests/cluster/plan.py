"""What a cluster's supervisor is told: commands to run first, then programs to keep running."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """A program that the supervisor keeps running.

    Attributes
    ----------
    name
        Its name; also of its log.
    argv
        The command.
    env
        Variables in addition to the supervisor's.
    after
        Names of programs that must be ready before it starts.
    ready_path
        Ready when this path exists.
    ready_url
        Ready when this URL answers 200; certificates are checked against ``ca``.
    ca
        Authority for ``ready_url``.
    """

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    ready_path: str = ""
    ready_url: str = ""
    ca: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything the supervisor does.

    Attributes
    ----------
    setup
        Commands to run one after the other at the start; the first failure ends it all.
    programs
        Programs to start when what they come after is ready, and again when they end.
    logs
        Folder for one log per program.
    state
        File in which the supervisor tells how the programs are.
    """

    setup: list[list[str]]
    programs: list[Program]
    logs: str
    state: str

    def write(self, path: Path) -> None:
        """Write it for the supervisor."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what was written."""
        document: dict[str, Any] = json.loads(path.read_text())
        programs = [Program(**program) for program in document.pop("programs")]
        return cls(programs=programs, **document)
