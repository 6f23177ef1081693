"""What the device's memory has been found to bear."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imagegen.engines.base import GenerationSettings

__all__ = ["MemoryLimits"]

_PATIENCE = 32
_MOST_PATIENCE = 1024
_STEPS_PER_DOUBLING = 2


@dataclass
class _Learned:
    """What is known of sizes that are alike; a limit of 0 is one picture, decoded in tiles."""

    limit: int
    patience: int = _PATIENCE
    good: int = 0
    raised: bool = False

    def failed(self, limit: int) -> None:
        if self.raised:
            # It was us who tried a larger batch: try more seldom, for every try may cost a user.
            self.patience = min(2 * self.patience, _MOST_PATIENCE)
        self.limit = min(self.limit, limit)
        self.good = 0
        self.raised = False


class MemoryLimits:
    """The largest batches to try, per size: halved at once, raised by one after long.

    The memory of a batch grows with its pixels and its pictures and not with its steps. Sizes are
    alike if their areas lie in the same of steps by the square root of 2, up to a power of 2: what
    large pictures need says nothing about small ones, nor the reverse. The size classes of metrics
    are too wide for that: the smallest one holds areas of 256 to 262,144 pixels.

    A raise comes after 32 batches at the limit that fitted; when the batch after a raise does not
    fit, the next one comes after twice as many, up to 1,024.

    Parameters
    ----------
    most
        Pictures of a batch where nothing else is known.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._learned: dict[int, _Learned] = {}

    def largest(self, settings: GenerationSettings) -> int:
        """Give the most pictures of a batch, at least 1."""
        return max(1, self._limit(_step(settings)))

    def needs_tiles(self, settings: GenerationSettings) -> bool:
        """Tell whether a single picture was found to fit only when it is decoded in tiles."""
        return self._limit(_step(settings)) == 0

    def fitted(self, settings: GenerationSettings, pictures: int) -> None:
        """Note that a batch fitted."""
        step = _step(settings)
        limit = self._limit(step)
        if pictures < max(1, limit) or limit == self._most:
            return
        learned = self._of(step)
        learned.good += 1
        if learned.good < learned.patience:
            return
        learned.good = 0
        learned.raised = True
        for other, one in self._learned.items():
            if other <= step and one.limit == limit:
                one.limit += 1
                one.raised = True

    def failed(self, settings: GenerationSettings, pictures: int) -> None:
        """Note that a batch did not fit: from now on at most its larger half is tried."""
        self._of(_step(settings)).failed((pictures + 1) // 2)

    def tiles_helped(self, settings: GenerationSettings) -> None:
        """Note that a single picture fitted only when it was decoded in tiles."""
        self._of(_step(settings)).failed(0)

    def _limit(self, step: int) -> int:
        # A copy, for the worker may add a size while another thread asks.
        known = tuple(self._learned.items())
        return min((one.limit for other, one in known if other <= step), default=self._most)

    def _of(self, step: int) -> _Learned:
        return self._learned.setdefault(step, _Learned(self._most))


def _step(settings: GenerationSettings) -> int:
    return math.ceil(_STEPS_PER_DOUBLING * math.log2(settings.width * settings.height))
