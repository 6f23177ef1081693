"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from imagegen.miniature.evaluation.grid import BASE, CONTROLS, VARIED
from imagegen.miniature.evaluation.results import Result, read_results

__all__ = ["all_results", "markdown"]

_HEADING: Final = (
    "Share of words read exactly by OCR (with its 95 % interval), similarity of words, share of "
    "pictures with the right number, the right shapes, and the right colours; pixel stability "
    "deviation (PSD) of repeats, and between a batch and single pictures; time and processor time "
    "per picture; the most memory in use."
)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(result: Result) -> str:
    if result.exact is None:
        return ""
    return f"{result.exact:.3f} ({result.exact_low:.2f} to {result.exact_high:.2f})"


def _deviation(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value else "0"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _setting(result: Result) -> str:
    if result.varied == CONTROLS:
        return "not sampled"
    return (
        f"{result.steps} steps, guidance {result.guidance_scale:g}, {result.scheduler}, "
        f"{result.precision}, batch {result.batch_size}"
    )


_COLUMNS: Final[dict[str, Callable[[Result], str]]] = {
    "setting": _setting,
    "n": lambda result: str(result.pictures),
    "exact words": _interval,
    "similarity": lambda result: _rate(result.similarity),
    "count": lambda result: _rate(result.count),
    "shapes": lambda result: _rate(result.shapes),
    "colours": lambda result: _rate(result.colours),
    "repeat PSD": lambda result: _deviation(result.repeat_psd),
    "batch PSD": lambda result: _deviation(result.batch_psd),
    "ms": lambda result: _whole(result.milliseconds),
    "CPU ms": lambda result: _whole(result.processor_milliseconds),
    "MB": lambda result: _whole(result.peak_mb),
}


def _rows(results: Sequence[Result]) -> list[str]:
    head = ["| " + " | ".join(_COLUMNS) + " |", "| --- " * len(_COLUMNS) + "|"]
    return head + [
        "| " + " | ".join(column(result) for column in _COLUMNS.values()) + " |"
        for result in results
    ]


def all_results(folder: Path) -> dict[str, list[Result]]:
    """Read the results of all models in a folder, by the model's name."""
    results: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*.csv")):
        for result in read_results(path):
            results.setdefault(result.model, []).append(result)
    return results


def markdown(results: dict[str, list[Result]]) -> str:
    """Show all results: a table per model and per thing that was varied."""
    parts = ["# Evaluation", "", _HEADING, ""]
    for model, measured in results.items():
        parts += [f"## {model}", ""]
        for varied in (CONTROLS, BASE, *VARIED):
            rows = [result for result in measured if result.varied == varied]
            base = [result for result in measured if result.varied == BASE]
            if rows:
                title = [] if varied in {BASE, CONTROLS} else [f"### {varied}", ""]
                shown = rows if varied in {BASE, CONTROLS} else _in_order(varied, base + rows)
                parts += [*title, *_rows(shown), ""]
    return "\n".join(parts)


def _in_order(varied: str, results: Sequence[Result]) -> list[Result]:
    keys: dict[str, Callable[[Result], float | str]] = {
        "steps": lambda result: result.steps or 0,
        "guidance": lambda result: result.guidance_scale or 0.0,
        "scheduler": lambda result: str(result.scheduler),
        "precision": lambda result: str(result.precision),
        "batch": lambda result: result.batch_size or 0,
    }
    return sorted(results, key=keys[varied])
