"""All studies, in the order in which they are run."""

from __future__ import annotations

from typing import Final

from benchmarks import bursts, limits, means, rare_events, shares, slowdowns, speed, yeast
from benchmarks.study import Study

__all__ = ["STUDIES"]

STUDIES: Final[tuple[Study, ...]] = (
    yeast.STUDY,
    shares.STUDY,
    slowdowns.STUDY,
    limits.STUDY,
    bursts.STUDY,
    means.STUDY,
    rare_events.STUDY,
    speed.STUDY,
)
