"""The prompts that a probe sends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

__all__ = ["Prompt", "load_suite"]


@dataclass(frozen=True)
class Prompt:
    """A prompt with the seed that both arms get."""

    id: str
    block: str
    prompt: str
    seed: int


def load_suite(name: str) -> tuple[Prompt, ...]:
    """Read a suite that ships with this package.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    folder = resources.files("imagegen").joinpath("suites")
    known = sorted(
        entry.name.removesuffix(".jsonl")
        for entry in folder.iterdir()
        if entry.name.endswith(".jsonl")
    )
    if name not in known:
        raise ValueError(f"no suite {name!r}; there are: {', '.join(known)}")
    text = folder.joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(Prompt(**json.loads(line)) for line in text.splitlines() if line)
