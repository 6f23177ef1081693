"""The verdict over all gates of a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Analysis
from modelrollout.gates import (
    cost,
    errors,
    gpu_memory,
    latency,
    out_of_memory,
    query,
    stability,
    text_accuracy,
)
from modelrollout.gates.evidence import Evidence
from modelrollout.gates.kind import Kind
from modelrollout.gates.load import unborne
from modelrollout.gates.look import UNREADABLE, Look, not_evidence
from modelrollout.gates.verdict import (
    Finding,
    GateResult,
    Unmeasured,
    Verdict,
    combine,
    unknown,
)

__all__ = ["KINDS", "Assessment", "evaluate", "latency_edges"]

KINDS: Final[Mapping[type, Kind[Any]]] = {
    kind.criterion: kind
    for kind in (
        latency.KIND,
        errors.KIND,
        out_of_memory.KIND,
        gpu_memory.KIND,
        cost.KIND,
        stability.KIND,
        text_accuracy.KIND,
        query.KIND,
    )
}
"""The kinds of gates, by the type that declares them."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the gates say about a candidate at one look."""

    results: tuple[GateResult, ...]
    """One per gate, in the order in which they are declared."""

    verdict: Verdict
    """Over all enforced gates, the declared minimum of requests, and whether the load was borne."""

    requests: int
    """Requests measured since the warm-up ended."""

    reason: str
    message: str


def evaluate(
    gates: Sequence[Gate], analysis: Analysis, evidence: Evidence, *, stages: int = 1
) -> Assessment:
    """Judge a candidate on the evidence so far.

    The verdict is valid at every look: looking often does not make a wrong one more likely.

    Parameters
    ----------
    gates
        The declared criteria.
    analysis
        How much evidence a verdict needs.
    evidence
        Counters and results of the probe. No value in it makes this function raise: what cannot
        be judged is Invalid.
    stages
        Measured stages of the attempt. Each begins its evidence anew, so that they share the error
        budget for Fail, as the gates do.
    """
    enforced = sum(gate.mode is GateMode.ENFORCE for gate in gates)
    look = Look.at(evidence, analysis, tests=enforced * stages)
    results = tuple(
        GateResult.of(gate.name, _judge(gate, look), enforced=gate.mode is GateMode.ENFORCE)
        for gate in gates
    )
    verdict = combine(results)
    reason, message = _summary(results, verdict)
    if verdict is Verdict.PASS:
        unmet = _unborne(look) or _too_few(look)
        if unmet is not None:
            verdict, reason, message = unmet.verdict, unmet.reason, unmet.message
    return Assessment(results, verdict, look.requests, reason, message)


def _unborne(look: Look) -> Unmeasured | None:
    try:
        return unborne(look)
    except UNREADABLE as error:
        return Unmeasured(Verdict.INVALID, "NotEvidence", not_evidence(error))


def _too_few(look: Look) -> Unmeasured | None:
    if look.requests >= look.min_requests:
        return None
    return Unmeasured(
        Verdict.INCONCLUSIVE,
        "MinRequests",
        f"all gates pass; {look.requests} of at least {look.min_requests} requests "
        "are measured (`analysis.minRequests`)",
    )


def latency_edges(gates: Sequence[Gate]) -> list[int]:
    """Return the latency limits in milliseconds, ascending.

    Each must be an edge of the server's histogram, or its gate cannot be judged.
    """
    limits = {gate.latency.max_milliseconds for gate in gates if gate.latency is not None}
    return sorted(limit for limit in limits if limit is not None)


def _judge(gate: Gate, look: Look) -> Finding:
    kind = KINDS.get(type(gate.criterion))
    if kind is None:
        return unknown()
    try:
        finding = kind.judge(gate.criterion, look)
    except UNREADABLE as error:
        return Finding(Verdict.INVALID, "NotEvidence", not_evidence(error), limit="")
    return finding if kind.prompts else _explain_limit(finding, look)


def _explain_limit(finding: Finding, look: Look) -> Finding:
    """Say so when a gate cannot pass within the declared number of requests."""
    if finding.needed is None or look.requests + finding.needed <= look.max_requests:
        return finding
    return replace(
        finding,
        message=f"{finding.message}; that is more than the {look.max_requests} requests of "
        "`analysis.maxRequests`",
    )


def _summary(results: Sequence[GateResult], verdict: Verdict) -> tuple[str, str]:
    """Return the first reason and all messages of the gates that made the verdict."""
    decisive = [item for item in results if item.enforced and item.verdict is verdict]
    if not decisive:
        return "NoEnforcedGate", "no gate is enforced: nothing could promote the candidate"
    if verdict is Verdict.PASS:
        names = ", ".join(item.name for item in decisive)
        return "AllGatesPass", f"all enforced gates pass: {names}"
    names_by_message: dict[str, list[str]] = {}
    for item in decisive:
        names_by_message.setdefault(item.message, []).append(item.name)
    return decisive[0].reason, "; ".join(
        f"{', '.join(names)}: {message}" for message, names in names_by_message.items()
    )
