"""The acts of the story: which example is applied, what is told, and how it must end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

__all__ = [
    "CARELESS",
    "FIRST",
    "GOOD",
    "INCIDENT",
    "MEMORY",
    "REFUSED",
    "RELAXED",
    "Act",
    "Setting",
    "setting_of",
]

_FILES: Final = Path(__file__).parent
REFUSED: Final = "3-incident-refused.yaml"


@dataclass(frozen=True)
class Setting:
    """How a model is asked for pictures; the names are those of the API."""

    model: str
    steps: int
    guidance_scale: float
    scheduler: str
    precision: str

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.model}: {self.steps} {'step' if self.steps == 1 else 'steps'}, "
            f"guidance {self.guidance_scale:g}, {self.scheduler}"
        )


def setting_of(file: Path) -> Setting:
    """Read from an example how its model is used."""
    model = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]["model"]
    pipeline = model["pipeline"]
    return Setting(
        model=model["source"]["persistentVolumeClaim"]["path"],
        steps=pipeline["steps"],
        guidance_scale=float(pipeline["guidanceScale"]),
        scheduler=pipeline["scheduler"],
        precision=pipeline["precision"],
    )


@dataclass(frozen=True)
class Act:
    """One rollout, and how it must end.

    Attributes
    ----------
    example
        Name of the file that is applied.
    title, text
        The heading, and what is told before.
    outcome, reason
        As ``status.history`` must say.
    gate
        The gate whose verdict must be Fail; empty for none.
    """

    example: str
    title: str
    text: str
    outcome: str
    reason: str
    gate: str = ""

    @property
    def file(self) -> Path:
        """The example."""
        return _FILES / self.example

    @property
    def setting(self) -> Setting:
        """How its model is used."""
        return setting_of(self.file)


FIRST: Final = Act(
    "1-first.yaml",
    "0. The first revision",
    "A small diffusion model that was trained to spell is put into service: pictures of 128x64. "
    "There is nothing to compare it with yet, so it serves as soon as it is ready.",
    "Promoted",
    "FirstRevision",
)
GOOD: Final = Act(
    "2-good.yaml",
    "a. A good candidate",
    "The same model, distilled to four steps without guidance. The candidate gets a pod of its own "
    "and no users. A probe asks it for the same pictures several times, then sends load to it and "
    "to stable, the same prompts and seeds to both, and Prometheus counts. It takes over when "
    "every gate has passed.",
    "Promoted",
    "Promoted",
)
INCIDENT: Final = Act(
    "3a-incident.yaml",
    "b. The incident, with a scheduler that exists",
    "A new model whose samples shine, with many steps, guidance 12, full precision, batches of 8 "
    "and caps that cap nothing.",
    "RolledBack",
    "GateFailed",
    "latency-p90",
)
RELAXED: Final = Act(
    "3b-incident-relaxed.yaml",
    "b. The same, with the latency gate relaxed",
    "Somebody raises the latency limit from 1.5 s to 60 s to get it through. Other gates mean "
    "another attempt; the gate on cost is still there.",
    "RolledBack",
    "GateFailed",
    "cost",
)
MEMORY: Final = Act(
    "4-out-of-memory.yaml",
    "c. More memory than there is",
    "Pictures of 2048x1024 in batches of 8, with a memory limit of 1500Mi. The kernel kills the "
    "container while it warms up.",
    "RolledBack",
    "ContainerOutOfMemory",
)
CARELESS: Final = Act(
    "5-careless.yaml",
    "d. A setting that no gate of today sees",
    "The model that spells, with a single step. It is fast, cheap and never fails, so it passes "
    "every gate there is; what it has lost is its spelling.",
    "Promoted",
    "Promoted",
)
