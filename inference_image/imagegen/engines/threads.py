"""How many CPU threads the engine may use."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cpu_threads"]

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cpu_threads(*, environment: Mapping[str, str] = os.environ, cpu_max: Path = _CPU_MAX) -> int:
    """Give the number of threads that the process has CPU time for.

    More threads than the container's quota only get throttled, in steps of a tenth of a second.
    The number is also part of what makes pictures repeatable: sums are split by thread.

    Parameters
    ----------
    environment
        ``OMP_NUM_THREADS``, a whole number above 0, decides when it is there.
    cpu_max
        The control group's quota and period in microseconds; ``max`` is no quota.
    """
    declared = environment.get("OMP_NUM_THREADS", "")
    if declared.isdecimal() and int(declared) > 0:
        return int(declared)
    usable = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return usable
    if quota == "max":
        return usable
    return max(1, min(usable, math.floor(int(quota) / int(period))))
