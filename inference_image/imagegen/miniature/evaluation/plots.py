"""Results as plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from imagegen.miniature.evaluation.grid import BASE
from imagegen.miniature.evaluation.results import Result

__all__ = ["draw_plots"]

_STYLE: Final = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "evaluation",
}
_COLOURS: Final = ("#123f6d", "#d98324", "#8e6bb0", "#3c8a46", "#b5443c")

_USUAL_LIMIT: Final = 0.002
"""Of a pixel stability deviation: half a level of 8 bits."""

Models = Mapping[str, Sequence[Result]]
_Number = Callable[[Result], float | None]

_QUALITY: Final[dict[str, _Number]] = {
    "words read exactly": lambda result: result.exact,
    "similarity of words": lambda result: result.similarity,
    "right number of shapes": lambda result: result.count,
    "right colours": lambda result: result.colours,
}
_COST: Final[dict[str, _Number]] = {
    "ms per picture": lambda result: result.milliseconds,
    "CPU ms per picture": lambda result: result.processor_milliseconds,
    "peak memory, MB": lambda result: result.peak_mb,
}
_STABILITY: Final[dict[str, _Number]] = {
    "repeat PSD": lambda result: result.repeat_psd,
    "batch PSD": lambda result: result.batch_psd,
}
_RANGES: Final[dict[str, _Number]] = {
    "steps": lambda result: result.steps,
    "guidance": lambda result: result.guidance_scale,
}
_CHOICES: Final[dict[str, Callable[[Result], str]]] = {
    "scheduler": lambda result: str(result.scheduler),
    "precision": lambda result: str(result.precision),
    "batch": lambda result: str(result.batch_size),
}


def _at(results: Sequence[Result], varied: str) -> list[Result]:
    return [result for result in results if result.varied in {varied, BASE}]


def _points(results: Sequence[Result], x: _Number, y: _Number) -> list[tuple[float, float, Result]]:
    """Give what has both numbers, from the least `x` to the greatest."""
    known = [(x(result), y(result), result) for result in results]
    points = [
        (at, high, result) for at, high, result in known if at is not None and high is not None
    ]
    return sorted(points, key=lambda point: point[0])


def _courses(models: Models, measures: Mapping[str, _Number]) -> Figure:
    """Draw measures over steps and over guidance, one line per model."""
    figure = Figure(figsize=(8.6, 2.1 * len(measures)), layout="constrained")
    panels = figure.subplots(len(measures), len(_RANGES), sharex="col", sharey="row", squeeze=False)
    for row, (title, measure) in zip(panels, measures.items(), strict=True):
        for axes, (varied, x) in zip(row, _RANGES.items(), strict=True):
            for (name, results), colour in zip(models.items(), _COLOURS, strict=False):
                points = _points(_at(results, varied), x, measure)
                xs, ys = [point[0] for point in points], [point[1] for point in points]
                axes.plot(xs, ys, label=name, color=colour, marker="o", markersize=3)
                if title == next(iter(_QUALITY)):
                    low = [point[2].exact_low or 0.0 for point in points]
                    high = [point[2].exact_high or 0.0 for point in points]
                    axes.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
            if title in _QUALITY:
                _percent(axes)
        row[0].set_ylabel(title)
    for axes, varied in zip(panels[-1], _RANGES, strict=True):
        axes.set_xlabel({"steps": "steps", "guidance": "guidance scale"}[varied])
    panels[0][0].set_xscale("log")
    panels[0][0].set_xticks((1, 2, 4, 8, 16, 25, 50), ("1", "2", "4", "8", "16", "25", "50"))
    panels[0][0].xaxis.set_minor_locator(NullLocator())
    _legend(figure, panels[0][0])
    return figure


def _legend(figure: Figure, axes: Any) -> None:
    """Name the models above all panels."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(len(names), 1))


def _percent(axes: Any) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _bars(models: Models, measures: Mapping[str, _Number]) -> Figure:
    """Draw measures for what has no order, one bar per model."""
    figure = Figure(figsize=(8.6, 2.1 * len(measures)), layout="constrained")
    panels = figure.subplots(
        len(measures), len(_CHOICES), sharex="col", sharey="row", squeeze=False,
        width_ratios=(3, 1, 1),
    )  # fmt: skip
    width = 0.8 / max(len(models), 1)
    for row, (title, measure) in zip(panels, measures.items(), strict=True):
        for axes, (varied, label) in zip(row, _CHOICES.items(), strict=True):
            shown = {name: _at(results, varied) for name, results in models.items()}
            names = sorted({label(result) for results in shown.values() for result in results})
            for at, (name, colour) in enumerate(zip(shown, _COLOURS, strict=False)):
                found = {label(result): measure(result) for result in shown[name]}
                heights = [found.get(each) or 0.0 for each in names]
                places = [place + at * width for place in range(len(names))]
                axes.bar(places, heights, width, label=name, color=colour)
            middles = [place + width * (len(models) - 1) / 2 for place in range(len(names))]
            axes.set_xticks(middles, names, rotation=25, ha="right")
            if title in _QUALITY:
                _percent(axes)
            if title in _STABILITY:
                axes.set_ylim(0, max(_USUAL_LIMIT, axes.get_ylim()[1]))
        row[0].set_ylabel(title)
    for axes, varied in zip(panels[-1], _CHOICES, strict=True):
        axes.set_xlabel(varied)
    _legend(figure, panels[0][0])
    return figure


def draw_plots(results: Models, folder: Path) -> list[Path]:
    """Draw the plots of all models that were sampled; give the files."""
    models = {
        name: measured
        for name, measured in results.items()
        if any(result.varied == BASE for result in measured)
    }
    exact = {"words read exactly": _QUALITY["words read exactly"]}
    figures = {
        "quality": (_courses, _QUALITY),
        "cost": (_courses, _COST),
        "choices": (_bars, exact | _COST | _STABILITY),
    }
    written = []
    with mpl.rc_context(_STYLE):
        for name, (plot, measures) in figures.items():
            path = folder / f"{name}.svg"
            plot(models, measures).savefig(path, metadata={"Date": None})
            written.append(path)
    return written
