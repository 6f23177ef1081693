"""When the requests of an open loop are sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagegen.probe.suite import Prompt

__all__ = ["Shot", "load_schedule"]

_SEEDS = 2**32


@dataclass(frozen=True)
class Shot:
    """A request that goes to every arm at the same moment."""

    at_seconds: float
    """Seconds after the start of the load phase."""

    prompt: Prompt
    seed: int


def load_schedule(prompts: Sequence[Prompt], *, rate: float, count: int | None) -> Iterator[Shot]:
    """Yield `count` requests at a fixed rate, whatever the servers make of them.

    Every round through the prompts takes other seeds, so that no request is sent twice.

    Parameters
    ----------
    prompts
        The suite.
    rate
        Requests per second and arm.
    count
        Requests per arm; without a number they never end.
    """
    for index in itertools.count() if count is None else range(count):
        lap, place = divmod(index, len(prompts))
        prompt = prompts[place]
        seed = (prompt.seed + 7919 * lap) % _SEEDS
        yield Shot(at_seconds=index / rate, prompt=prompt, seed=seed)
