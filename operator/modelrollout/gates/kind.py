"""What the kinds of gates have in common: what each judges, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelrollout.api.base import ApiModel
from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding

__all__ = ["Kind"]

_Criterion = TypeVar("_Criterion", bound=ApiModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Criterion]):
    """One kind of gate."""

    criterion: type[_Criterion]
    """What is declared in the custom resource."""

    judge: Callable[[_Criterion, Look], Finding]
    """Without the evidence that it needs, or on garbage, it finds Invalid."""

    prompts: bool = False
    """Whether it counts prompts and not requests."""
