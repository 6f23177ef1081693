"""What the committed evaluation says of the spelling of a model at a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from examples.demo.acts import Setting
from imagegen.miniature.evaluation.results import Result, read_results, results_file

__all__ = ["EVALUATION", "measured", "said"]

EVALUATION: Final = "benchmarks/results-models"
"""Folder in the repository with the tables that ``imagegen miniature evaluate`` wrote."""

_ROOT: Final = Path(__file__).parents[2]


def measured(setting: Setting) -> Result:
    """Return what was measured of a model at a setting, one picture at a time.

    Raises
    ------
    LookupError
        The setting was not measured.
    """
    file = results_file(_ROOT / EVALUATION, setting.model)
    wanted = (setting.steps, setting.guidance_scale, setting.scheduler, setting.precision, 1)
    found = [
        result
        for result in read_results(file)
        if result.words
        and wanted
        == (
            result.steps,
            result.guidance_scale,
            result.scheduler,
            result.precision,
            result.batch_size,
        )
    ]
    if not found:
        raise LookupError(f"{file.relative_to(_ROOT)} has no row for {setting}")
    return max(found, key=lambda result: result.words)


def said(setting: Setting) -> str:
    """Say how many words of how many are read as they should be."""
    result = measured(setting)
    return f"{100 * (result.exact or 0):.0f} % of {result.words} words right"
