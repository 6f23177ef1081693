"""Whether a spec can be used: what schema and CEL cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelrollout.api.conditions import Reason
from modelrollout.api.spec import Spec
from modelrollout.gates.feasibility import infeasible_gate
from modelrollout.rollout.inputs import Catalogue
from modelrollout.rollout.world import World

__all__ = ["Acceptance", "accept"]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to a spec, fit for the condition ``Accepted``."""

    accepted: bool
    reason: Reason
    message: str


def accept(spec: Spec, catalogue: Catalogue, world: World) -> Acceptance:
    """Check a spec against what the administrator offers and what exists already."""
    if world.name_taken:
        return Acceptance(
            accepted=False,
            reason=Reason.NAME_CONFLICT,
            message=f"a Service named '{world.name_taken}' exists and is not this rollout's; "
            "rename the rollout, or remove that Service",
        )
    if spec.pool not in catalogue.gpu_hour_prices:
        return Acceptance(
            accepted=False,
            reason=Reason.UNKNOWN_POOL,
            message=f"`spec.pool`: '{spec.pool}' is not a pool of this cluster; "
            f"use one of {_listed(catalogue.gpu_hour_prices)}",
        )
    if spec.serving.runtime not in catalogue.runtimes:
        return Acceptance(
            accepted=False,
            reason=Reason.UNKNOWN_RUNTIME,
            message=f"`spec.serving.runtime`: '{spec.serving.runtime}' is not in the catalogue; "
            f"use one of {_listed(catalogue.runtimes)}",
        )
    infeasible = infeasible_gate(spec.gates, spec.analysis)
    if infeasible is not None:
        return Acceptance(
            accepted=False, reason=Reason.GATE_INFEASIBLE, message=f"`spec.gates`: {infeasible}"
        )
    return Acceptance(accepted=True, reason=Reason.VALID, message="the spec can be used")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
