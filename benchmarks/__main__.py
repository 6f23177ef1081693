"""Run the simulations and write tables and plots.

A full run takes minutes on two cores and writes benchmarks/results, the tables of
docs/statistics.md and the plots in docs/images. A quick one takes seconds and prints the tables
instead: it shows that everything works, its figures are noise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.catalogue import STUDIES
from benchmarks.plots import draw
from benchmarks.study import Scale
from benchmarks.tables import DOCUMENT, RESULTS, embed, read, write

_IMAGES = DOCUMENT.parent / "images"


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    names = [study.name for study in STUDIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="few runs, in seconds; print only")
    parser.add_argument("--only", action="append", choices=names, help="one study, or several")
    parser.add_argument("--plots", action="store_true", help="draw from the kept tables only")
    options = parser.parse_args(arguments)
    wanted = [] if options.plots else options.only or names
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            for path in _simulate(wanted, Path(folder), quick=True):
                print(f"\n{path.stem}\n{path.read_text()}")
        return 0
    _simulate(wanted, RESULTS, quick=False)
    _document(wanted)
    draw(RESULTS, _IMAGES)
    return 0


def _simulate(names: list[str], folder: Path, *, quick: bool) -> list[Path]:
    """Run studies, write their tables, and say how long each took."""
    written = []
    with ProcessPoolExecutor() as pool:
        scale = Scale(pool, quick=quick)
        for study in STUDIES:
            if study.name not in names:
                continue
            started = time.monotonic()
            written += [write(table, folder) for table in study.run(scale)]
            print(f"{study.name}: {time.monotonic() - started:.0f} s", flush=True)
    return written


def _document(names: list[str]) -> None:
    """Put the kept tables of studies into the document."""
    document = DOCUMENT.read_text()
    for study in STUDIES:
        for view in study.views if study.name in names else ():
            document = embed(document, view.name, view.render(read(view.table)))
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
