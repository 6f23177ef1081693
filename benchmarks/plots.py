"""Plots of the kept tables, as SVG for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks import bursts, limits, shares, slowdowns
from benchmarks.tables import Cell, read

__all__ = ["draw"]

_STYLE: Final = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#7b8794",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e7eb",
    "text.color": "#1f2933",
    "axes.labelcolor": "#1f2933",
    "xtick.color": "#47535f",
    "ytick.color": "#47535f",
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}
_RAMP: Final = ("#a6c8ec", "#5b9bd5", "#2f6fb0", "#123f6d")
"""From few requests to many."""

_RULES: Final = {
    "engine": ("ModelRollout", "#123f6d", "-", "o"),
    "p95 ratio, each look": ("p95 ratio > 1.2, each look", "#b5443c", "-", "s"),
    "Flagger, threshold 2": ("Flagger, threshold 2", "#d98324", "--", "^"),
    "Argo, failureLimit 0": ("Argo Rollouts, failureLimit 0", "#8e6bb0", ":", "v"),
    "Argo, failureLimit 3": ("Argo Rollouts, failureLimit 3", "#8e6bb0", "-", "v"),
    "rank judge, ten looks": ("rank-sum judge, 98 %", "#3c8a46", "-.", "D"),
}
_NOMINAL: Final = 0.05
_FORMATS: Final = ("svg",)


def draw(tables: Path, images: Path, formats: Sequence[str] = _FORMATS) -> list[Path]:
    """Draw all plots from the tables in a folder; return the files."""
    plots = {
        "operating-curves": _operating_curves,
        "slowdowns": _slowdowns,
        "requests-to-pass": _requests_to_pass,
        "correlation": _correlation,
    }
    written = []
    with mpl.rc_context(_STYLE):
        for name, plot in plots.items():
            figure = plot(tables)
            for kind in formats:
                path = images / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(path, metadata=metadata, dpi=110)
                written.append(path)
    return written


def _operating_curves(tables: Path) -> Figure:
    curves = read("share_curves", tables)
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, verdict in zip(both, ("passes", "fails"), strict=True):
        for most, colour in zip(shares.HORIZONS, _RAMP, strict=True):
            rows = curves.where(n_max=most)
            axes.plot(_numbers(rows, "share"), _numbers(rows, verdict), color=colour, label=most)
        axes.axvline(shares.LIMIT, color="#47535f", linewidth=1, linestyle=":")
        axes.text(shares.LIMIT + 0.002, 0.97, "limit", color="#47535f", va="top")
        axes.set_xlabel("true share of slow requests")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _probability(axes, f"probability that the gate {verdict}")
        axes.set_xlim(0, 0.16)
    both[0].legend(title="requests at most", loc="center right")
    return figure


def _slowdowns(tables: Path) -> Figure:
    table = read("slowdowns", tables)
    figure = Figure(figsize=(9.2, 4.3), layout="constrained")
    for axes, n_max in zip(figure.subplots(1, 3, sharey=True), slowdowns.HORIZONS, strict=True):
        axes.axvspan(10, 25, color="#f3f4f6")
        for rule, (label, colour, line, marker) in _RULES.items():
            rows = [row for row in table.where(rule=rule, n_max=n_max) if _is_up_to(row, 1.5)]
            increase = [100 * (value - 1) for value in _numbers(rows, "slowdown")]
            axes.plot(
                increase,
                _numbers(rows, "fails"),
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                label=label,
                zorder=3 if rule == "engine" else 2,
            )
        axes.set_title(f"at most {n_max} candidate requests")
        axes.set_xlabel("true slowdown, %")
        _probability(axes, "probability of a rollback" if n_max == slowdowns.HORIZONS[0] else "")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _requests_to_pass(tables: Path) -> Figure:
    table = read("slowdowns", tables)
    figure = Figure(figsize=(6.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for n_max, colour in zip(slowdowns.HORIZONS, _RAMP[1:], strict=True):
        rows = [row for row in table.where(rule="engine", n_max=n_max) if _is_up_to(row, 1.25)]
        increase = [100 * (value - 1) for value in _numbers(rows, "slowdown")]
        axes.plot(
            increase,
            _numbers(rows, "n_to_pass"),
            color=colour,
            marker="o",
            label=f"at most {n_max}",
        )
        axes.axhline(n_max, color=colour, linewidth=1, linestyle="--")
        axes.text(26, n_max + 4, f"other rules: {n_max}", color=colour)
    axes.set_xlim(-1, 33)
    axes.set_ylim(0, 330)
    axes.set_xlabel("true slowdown, %")
    axes.set_ylabel("median candidate requests until Pass")
    axes.legend(title="ModelRollout", loc="upper left", bbox_to_anchor=(0.0, 0.88))
    return figure


def _correlation(tables: Path) -> Figure:
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    table = read("limits", tables)
    n_max = limits.HORIZONS[-1]
    for error, label, colour in (
        ("fail", "fails at +10 %", "#b5443c"),
        ("pass", "passes at +25 %", "#2f6fb0"),
    ):
        for corrected, line in ((0, "--"), (1, "-")):
            found = [
                table.where(traffic=name, error=error, n_max=n_max, corrected=corrected)[0]
                for name in limits.BY_CORRELATION.values()
            ]
            axes_label = label if corrected else None
            left.plot(
                list(limits.BY_CORRELATION), _numbers(found, "rate"),
                color=colour, linestyle=line, marker="o", markersize=4, label=axes_label,
            )  # fmt: skip
    left.set_xlabel("correlation of neighbours at one pod")
    left.set_title(f"latency against stable, at most {n_max} requests")
    _probability(left, "probability of the wrong verdict", 0.6)
    table = read("bursts", tables)
    most = bursts.HORIZONS[1]
    for verdict, label, colour in (
        ("fails", "fails at the limit", "#b5443c"),
        ("passes", "passes at the limit", "#2f6fb0"),
    ):
        for corrected, line in ((0, "--"), (1, "-")):
            rows = table.where(share=bursts.LIMIT, n_max=most, corrected=corrected)
            right.plot(
                _numbers(rows, "burst"), _numbers(rows, verdict),
                color=colour, linestyle=line, marker="o", markersize=4,
                label=label if corrected else None,
            )  # fmt: skip
    right.set_xscale("log", base=2)
    right.set_xticks(bursts.LENGTHS, [str(length) for length in bursts.LENGTHS])
    right.set_xlabel("slow requests that follow each other, mean")
    right.set_title(f"p95 gate, at most {most} requests")
    _probability(right, "", 1.0)
    for axes in (left, right):
        axes.axhline(_NOMINAL, color="#47535f", linewidth=1, linestyle=":")
        axes.plot([], [], color="#47535f", linestyle="--", label="taken as independent")
        axes.legend(loc="upper left")
    return figure


def _probability(axes: Any, label: str, most: float = 1.0) -> None:
    axes.set_ylim(-0.02 * most, 1.02 * most)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(label)


def _is_up_to(row: dict[str, Cell], slowdown: float) -> bool:
    value = row["slowdown"]
    return isinstance(value, int | float) and value <= slowdown


def _numbers(rows: Sequence[dict[str, Cell]], column: str) -> list[float]:
    """Return a column as numbers, gaps as NaN."""
    return [float("nan") if row[column] is None else float(row[column] or 0) for row in rows]
