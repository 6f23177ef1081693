"""Results of evaluations, kept as CSV: one row per model and setting."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Result", "keep", "read_results", "results_file"]

_DIGITS: Final = 4


@dataclass(frozen=True)
class Result:
    """What was measured of a model at a setting; None where there is nothing to measure.

    The rates are those of :class:`imagegen.miniature.evaluation.scoring.Scores`.

    Attributes
    ----------
    model, digest
        Name of its folder, and what pins its files.
    varied
        What about the setting was tried; ``base`` and ``controls`` are none.
    steps, guidance_scale, scheduler, precision, batch_size
        The setting.
    seed
        Of the choice of prompts.
    repeat_psd, batch_psd
        Pixel stability deviation, the largest of a few prompts: of the same batch made twice; of
        pictures made in a batch and alone. 0 is bit-equal.
    milliseconds, processor_milliseconds
        Per picture: of the clock, and of all processor cores in sum.
    peak_mb
        The most memory in use beyond what was in use before the model was loaded, in MB.
    reader
        The OCR program and its version.
    """

    model: str
    digest: str
    varied: str
    steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    precision: str | None
    batch_size: int | None
    seed: int
    pictures: int
    words: int
    counted: int
    exact: float | None
    exact_low: float | None
    exact_high: float | None
    similarity: float | None
    invented: float
    count: float | None
    shapes: float | None
    colours: float
    repeat_psd: float | None
    batch_psd: float | None
    milliseconds: float | None
    processor_milliseconds: float | None
    peak_mb: float | None
    reader: str

    @property
    def key(self) -> tuple[object, ...]:
        """Tell what the result is about: a second one with the same key says the same."""
        return (
            self.model,
            self.digest,
            self.varied,
            self.steps,
            self.guidance_scale,
            self.scheduler,
            self.precision,
            self.batch_size,
            self.seed,
            self.pictures,
            self.reader,
        )


_TYPES: Final = {field.name: str(field.type) for field in dataclasses.fields(Result)}


def results_file(folder: Path, model: str) -> Path:
    """Name the file that holds the results of a model."""
    return folder / f"{model}.csv"


def _read(name: str, text: str) -> Any:
    wanted = _TYPES[name]
    if text == "" and wanted.endswith("None"):
        return None
    kind = {"int": int, "float": float, "str": str}[wanted.split(" ")[0]]
    return kind(text)


def read_results(path: Path) -> list[Result]:
    """Read the results that are there; none where there is no file.

    Raises
    ------
    ValueError
        If the file's columns are not those of :class:`Result`.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or set(reader.fieldnames) != set(_TYPES):
            raise ValueError(f"{path} has other columns than results have; remove it")
        return [Result(**{name: _read(name, row[name]) for name in _TYPES}) for row in reader]


def _written(value: object) -> object:
    return round(value, _DIGITS) if isinstance(value, float) else value


def keep(path: Path, results: Iterable[Result]) -> None:
    """Write the results of a model, in place of those that were there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".partial")
    with whole.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_TYPES)
        for result in results:
            writer.writerow([_written(value) for value in dataclasses.astuple(result)])
    whole.replace(path)  # never half a file, whenever it is ended
