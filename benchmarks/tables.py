"""Result tables: kept as CSV, shown as Markdown between markers in docs/statistics.md."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCUMENT", "RESULTS", "Table", "View", "embed", "markdown", "read", "write"]

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "statistics.md"

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they are kept: one observation per row, so that plots can select from them."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def column(self, name: str) -> list[Cell]:
        """Return one column."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def where(self, **wanted: Cell) -> list[dict[str, Cell]]:
        """Return the rows that have the wanted values, as dictionaries."""
        found = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return [row for row in found if all(row[name] == value for name, value in wanted.items())]


@dataclass(frozen=True, slots=True)
class View:
    """A Markdown table of the document, made from a kept table."""

    name: str
    """Name of its marker in the document."""

    table: str
    """Name of the kept table."""

    render: Callable[[Table], str]


def write(table: Table, folder: Path) -> Path:
    """Keep a table as CSV; probabilities are rounded to four digits, as more would be noise."""
    path = folder / f"{table.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow([_kept(cell) for cell in row])
    return path


def read(name: str, folder: Path = RESULTS) -> Table:
    """Read a kept table; what looks like a number is one."""
    with (folder / f"{name}.csv").open(newline="") as file:
        columns, *rows = csv.reader(file)
    return Table(name, tuple(columns), [tuple(_cell(text) for text in row) for row in rows])


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Render a Markdown table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def embed(document: str, name: str, body: str) -> str:
    """Return the document with the table of that name replaced.

    Raises
    ------
    ValueError
        When the document does not have exactly one place for it.
    """
    pattern = re.compile(
        rf"(<!-- table: {re.escape(name)} -->\n)(?:.*?\n)??(<!-- end -->)", flags=re.DOTALL
    )
    if len(pattern.findall(document)) != 1:
        raise ValueError(f"the document has no single place for the table '{name}'")
    return pattern.sub(lambda match: f"{match[1]}{body}\n{match[2]}", document)


def _kept(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) and abs(cell) >= 1 else _small(cell)


def _small(cell: Cell) -> str:
    return f"{round(cell, 4):g}" if isinstance(cell, float) else str(cell)


def _cell(text: str) -> Cell:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
