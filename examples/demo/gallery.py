"""Pictures that the service and its candidates serve in the story, collected on the way."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from examples.demo.acts import Act
from examples.demo.service import Service, Unexpected
from examples.demo.sheet import Row, save_sheet
from imagegen.probe.suite import Prompt, load_suite

__all__ = ["SHEET", "Gallery"]

SHEET: Final = Path(__file__).parents[2] / "build" / "demo-pictures.png"
_SHOWN: Final = ("m-04", "m-17", "m-15", "m-11", "m-12")
"""Prompts of the suite, by their names: words alone, words above shapes, shapes."""


class Gallery:
    """Asks models for the same pictures, and shows them side by side in the end.

    Parameters
    ----------
    service
        Whom to ask.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        suite = {prompt.id: prompt for prompt in load_suite("miniature")}
        self._prompts: Sequence[Prompt] = [suite[name] for name in _SHOWN]
        self._rows: dict[str, Row] = {}

    def collect(self, act: Act, revision: str = "") -> None:
        """Ask for all pictures at once: of the users' service, or of a revision on trial."""
        with ThreadPoolExecutor(len(self._prompts)) as pool:
            pictures = list(pool.map(lambda prompt: self._ask(prompt, revision), self._prompts))
        self._rows[act.example] = Row(str(act.setting), "", tuple(pictures))

    def _ask(self, prompt: Prompt, revision: str) -> bytes | None:
        try:
            return self._service.picture(prompt.prompt, prompt.seed, revision).png
        except Unexpected:
            if not revision:
                raise
            return None  # a candidate may be taken away, or may have too much to do

    def remark(self, act: Act, text: str) -> None:
        """Say below the model's name what became of it; one that was not asked has no place."""
        if act.example in self._rows:
            self._rows[act.example] = replace(self._rows[act.example], remark=text)

    def save(self) -> Path:
        """Write the sheet, and say where."""
        save_sheet(list(self._rows.values()), [prompt.prompt for prompt in self._prompts], SHEET)
        return SHEET
