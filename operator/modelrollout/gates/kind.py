"""What the kinds of gates have in common: what each judges, and the evidence that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from modelrollout.api.base import ApiModel
from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding

__all__ = ["Kind", "Need"]

_Criterion = TypeVar("_Criterion", bound=ApiModel)


class Need(Enum):
    """Evidence without which a gate cannot pass; its value says where that stands."""

    REQUESTS = "baseline, latest"
    """The candidate's counters since its warm-up."""

    COMPARISON = "comparison"
    """The counters of both arms from the same time."""

    LOG_MOMENTS = "comparison: log_moments"
    """Moments of log latency by request class, of both arms."""

    DEVICE_MEMORY = "latest: peak_memory_share"
    """The peak of the GPU memory in use."""

    REPEATS = "probe"
    """Deviations between repeats, which the probe measures."""

    DEVIATIONS = "deviations"
    """Other deviations between pictures that should be equal."""

    TEXT_ACCURACY = "text_accuracy"
    """How much of the words in prompts could be read."""

    QUERIES = "queries"
    """Values of the administrator's query templates."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Criterion]):
    """One kind of gate."""

    criterion: type[_Criterion]
    """What is declared in the custom resource."""

    needs: Callable[[_Criterion], frozenset[Need]]
    """The evidence without which a gate that is declared so cannot pass."""

    judge: Callable[[_Criterion, Look], Finding]
    """Never raises; without the evidence that it needs, or on garbage, it finds Invalid."""

    prompts: bool = False
    """Whether it counts prompts and not requests."""
