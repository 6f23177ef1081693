"""Results as plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from imagegen.miniature.evaluation.grid import BASE
from imagegen.miniature.evaluation.results import Result

__all__ = ["draw_plots"]

_STYLE: Final = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "evaluation",
}
_COLOURS: Final = ("#123f6d", "#d98324", "#8e6bb0", "#3c8a46", "#b5443c")

_Axis = Callable[[Result], float]


def _at(results: Sequence[Result], varied: str) -> list[Result]:
    return [r for r in results if r.varied in {varied, BASE} and r.exact is not None]


def _line(axes: Any, results: Sequence[Result], x: _Axis, *, label: str, colour: str) -> None:
    ordered = sorted(results, key=x)
    if not ordered:
        return
    xs, exact = [x(r) for r in ordered], [r.exact or 0.0 for r in ordered]
    low = [value - (r.exact_low or 0.0) for value, r in zip(exact, ordered, strict=True)]
    high = [(r.exact_high or 0.0) - value for value, r in zip(exact, ordered, strict=True)]
    axes.errorbar(
        xs, exact, yerr=(low, high), label=label, color=colour, marker="o", elinewidth=0.8
    )


def _spelling(models: dict[str, list[Result]]) -> Figure:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for (name, results), colour in zip(models.items(), _COLOURS, strict=False):
        for axes, varied, x in (
            (panels[0], "steps", lambda r: float(r.steps or 1)),
            (panels[1], "guidance", lambda r: float(r.guidance_scale or 0)),
            (panels[2], "steps", lambda r: float(r.processor_milliseconds or 0)),
        ):
            _line(axes, _at(results, varied), x, label=name, colour=colour)
    titles = ("steps", "guidance scale", "processor ms per picture, by steps")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xlabel(title)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_xscale("log")
    panels[2].set_xscale("log")
    for axes, ticks in ((panels[0], (1, 2, 4, 8, 16, 25, 50)),):
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
    panels[0].set_ylabel("words read exactly")
    panels[0].legend()
    return figure


def _choices(models: dict[str, list[Result]]) -> Figure:
    """Draw bars for what has no order: schedulers, precisions, batch sizes."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(3, 1, 1))
    names: tuple[tuple[str, Callable[[Result], str]], ...] = (
        ("scheduler", lambda r: str(r.scheduler)),
        ("precision", lambda r: str(r.precision)),
        ("batch", lambda r: str(r.batch_size)),
    )
    width = 0.8 / max(len(models), 1)
    for axes, (varied, label) in zip(panels, names, strict=True):
        found = sorted({label(r) for results in models.values() for r in _at(results, varied)})
        for at, ((model, results), colour) in enumerate(
            zip(models.items(), _COLOURS, strict=False)
        ):
            heights = {label(r): r.exact or 0.0 for r in _at(results, varied)}
            places = [i + at * width for i, name in enumerate(found) if name in heights]
            bars = [heights[name] for name in found if name in heights]
            axes.bar(places, bars, width, label=model, color=colour)
        axes.set_xticks(
            [i + width * (len(models) - 1) / 2 for i in range(len(found))],
            found,
            rotation=20,
            ha="right",
        )
        axes.set_title(varied)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel("words read exactly")
    panels[-1].legend()
    return figure


def draw_plots(results: dict[str, list[Result]], folder: Path) -> list[Path]:
    """Draw the plots of all models that were sampled; give the files."""
    models = {
        name: measured
        for name, measured in results.items()
        if any(result.varied == BASE for result in measured)
    }
    written = []
    with mpl.rc_context(_STYLE):
        for name, plot in (("spelling", _spelling), ("choices", _choices)):
            path = folder / f"{name}.svg"
            plot(models).savefig(path, metadata={"Date": None})
            written.append(path)
    return written
