"""How much memory a piece of work takes at most."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

__all__ = ["Peak", "peak_memory", "resident_bytes"]

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # proc(5): forget the most that was resident so far


@dataclass
class Peak:
    """The most memory in use, in bytes; None where the system does not tell."""

    bytes: int | None = None


def _status(name: str) -> int | None:
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def _give_back() -> None:
    """Have the allocator give freed memory back, or it would count for who comes next."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int | None:
    """Give the memory of the process that is resident now."""
    _give_back()
    return _status("VmRSS")


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measure the most that is resident (CPU) or allocated (CUDA) while the block runs.

    The peak is there after the block.
    """
    peak = Peak()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    _give_back()
    can_reset = False
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)
        can_reset = True
    yield peak
    peak.bytes = _status("VmHWM") if can_reset else None
