"""Measure the inference server on this machine.

A full run takes minutes on two idle cores and writes benchmarks/results-serving/. A quick one
prints only. The figures that can be compared between machines are ratios within the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.serving.processes import end_in_order, machine
from benchmarks.serving.studies import STUDIES, Figure, Scale

RESULTS = Path(__file__).parents[1] / "results-serving"


def table(where: str, figures: list[Figure]) -> str:
    """Write figures as Markdown."""
    rows = [f"| {one.study} | {one.name} | {one.value:.3g} | {one.unit} |" for one in figures]
    return "\n".join(
        [f"{where}", "", "| study | figure | value | unit |", "| --- " * 4 + "|", *rows]
    )


def _keep(name: str, where: str, figures: list[Figure]) -> None:
    RESULTS.mkdir(exist_ok=True)
    told = {"machine": where, "figures": [asdict(one) for one in figures]}
    (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few requests; print only")
    parser.add_argument("--only", action="append", choices=list(STUDIES))
    options = parser.parse_args(arguments)
    end_in_order()
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(Path(folder), quick=options.quick)
        for name in options.only or STUDIES:
            where = machine()
            figures = STUDIES[name](scale)
            print(table(where, figures), end="\n\n", flush=True)
            if not options.quick:
                _keep(name, where, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
