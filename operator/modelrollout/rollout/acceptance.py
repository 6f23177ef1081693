"""Whether a spec can be used: what schema and CEL cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelrollout.api.conditions import ConditionType, Reason
from modelrollout.api.spec import Spec
from modelrollout.api.status import ConditionStatus, StageKind, Status
from modelrollout.gates.evidence import Snapshot
from modelrollout.gates.feasibility import infeasible_gate
from modelrollout.gates.lint import lint, usable
from modelrollout.gates.totals import Totals
from modelrollout.rollout.inputs import Catalogue, Inputs
from modelrollout.rollout.world import World

__all__ = ["Acceptance", "accept", "awaits_lint", "with_lint"]


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


def awaits_lint(status: Status, generation: int) -> bool:
    """Tell whether the message of ``Accepted`` still lacks what stable's counters say."""
    candidate = status.candidate
    return (
        status.stable is not None
        and candidate is not None
        and candidate.stage in {StageKind.LOAD, StageKind.ISOLATED}
        and candidate.linted_generation != generation
    )


def with_lint(inputs: Inputs, acceptance: Acceptance, status: Status) -> tuple[Acceptance, Status]:
    """Say with an accepted spec what its gates ask for.

    It is said once for each generation of the spec, and once more as soon as stable's counters are
    known, so that status does not change with every look.

    Parameters
    ----------
    inputs
        One look.
    acceptance
        What `accept` says at this look.
    status
        The status after this look's decisions.
    """
    if not acceptance.accepted:
        return acceptance, status
    stable = _stable_totals(inputs) if awaits_lint(status, inputs.generation) else None
    if stable is None:
        told = _told(inputs)
        if told is not None:
            return replace(acceptance, message=told), status
    elif status.candidate is not None:
        linted = {"linted_generation": inputs.generation}
        candidate = status.candidate.model_copy(update=linted)
        status = status.model_copy(update={"candidate": candidate})
    price = inputs.catalogue.gpu_hour_prices[inputs.spec.pool]
    found = lint(inputs.spec, gpu_hour_price=price, stable=stable)
    return replace(acceptance, message=found.message()), status


def _told(inputs: Inputs) -> str | None:
    """Return what was said of this generation of the spec, if it was accepted."""
    for item in inputs.status.conditions:
        if item.type == ConditionType.ACCEPTED and item.status is ConditionStatus.TRUE:
            return item.message if item.observed_generation == inputs.generation else None
    return None


def _stable_totals(inputs: Inputs) -> Totals | None:
    """Return the lifetime counters of stable's pods, taken together."""
    stable, snapshot = inputs.status.stable, inputs.metrics
    if stable is None or not isinstance(snapshot, Snapshot):
        return None
    pods = inputs.world.revision(stable.revision).ready_pods
    known = [snapshot.servers.get((inputs.namespace, pod.name)) for pod in pods]
    counted = [totals for totals in known if totals is not None]
    return usable(Totals.over(counted)) if counted else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
