"""Which settings are tried: one thing is varied at a time, the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from imagegen.miniature.evaluation.generating import Setting

__all__ = ["BASE", "CONTROLS", "VARIED", "Trial", "trials"]

BASE: Final = "base"
"""What `Trial.varied` says of the setting that all others differ from."""

CONTROLS: Final = "controls"
"""What stands there for pictures that no denoiser made."""

_STEPS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 20, 25, 35, 50)
_GUIDANCE: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 9.0, 12.0)
_PRECISIONS: Final = ("Float32", "BFloat16")
_BATCH_SIZES: Final = (1, 2, 8)

VARIED: Final = ("steps", "guidance", "scheduler", "precision", "batch")
"""What can be varied."""


@dataclass(frozen=True)
class Trial:
    """A setting, and what about it is tried."""

    varied: str
    setting: Setting


def trials(base: Setting, *, varied: Sequence[str], schedulers: Sequence[str]) -> list[Trial]:
    """List the base setting and its variations, each of which differs from it in one thing."""
    ways = {
        "steps": [replace(base, steps=steps) for steps in _STEPS],
        "guidance": [replace(base, guidance_scale=scale) for scale in _GUIDANCE],
        "scheduler": [replace(base, scheduler=name) for name in schedulers],
        "precision": [replace(base, precision=name) for name in _PRECISIONS],
        "batch": [replace(base, batch_size=size) for size in _BATCH_SIZES],
    }
    others = [Trial(name, setting) for name in varied for setting in ways[name] if setting != base]
    # Least often is the model loaded anew when settings of one precision stand together.
    others.sort(key=lambda trial: trial.setting.precision != base.precision)
    return [Trial(BASE, base), *others]
