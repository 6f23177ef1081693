"""The verdict over all gates of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Analysis
from modelrollout.gates import cost, errors, latency, out_of_memory, stability
from modelrollout.gates.evidence import Evidence
from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding, GateResult, Verdict, combine

__all__ = ["Assessment", "evaluate", "latency_edges"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the gates say about a candidate at one look."""

    results: tuple[GateResult, ...]
    """One per gate, in the order in which they are declared."""

    verdict: Verdict
    """Over all enforced gates, and the declared minimum of requests."""

    requests: int
    """Requests measured since the warm-up ended."""

    reason: str
    message: str


def evaluate(gates: Sequence[Gate], analysis: Analysis, evidence: Evidence) -> Assessment:
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
    """
    enforced = sum(gate.mode is GateMode.ENFORCE for gate in gates)
    look = Look.at(evidence, analysis, enforced=enforced)
    results = tuple(
        _explain_limit(
            GateResult.of(gate.name, _judge(gate, look), enforced=gate.mode is GateMode.ENFORCE),
            analysis,
        )
        for gate in gates
    )
    verdict = combine(results)
    if verdict is Verdict.PASS and look.requests < analysis.min_requests:
        return Assessment(
            results,
            Verdict.INCONCLUSIVE,
            look.requests,
            "MinRequests",
            f"all gates pass; {look.requests} of at least {analysis.min_requests} requests "
            "are measured (`analysis.minRequests`)",
        )
    reason, message = _summary(results, verdict)
    return Assessment(results, verdict, look.requests, reason, message)


def latency_edges(gates: Sequence[Gate]) -> list[int]:
    """Return the latency limits in milliseconds, ascending.

    Each must be an edge of the server's histogram, or its gate cannot be judged.
    """
    return sorted({gate.latency.max_milliseconds for gate in gates if gate.latency is not None})


def _judge(gate: Gate, look: Look) -> Finding:
    if gate.latency is not None:
        return latency.judge(gate.latency, look)
    if gate.errors is not None:
        return errors.judge(gate.errors, look)
    if gate.out_of_memory is not None:
        return out_of_memory.judge(gate.out_of_memory, look)
    if gate.cost is not None:
        return cost.judge(gate.cost, look)
    if gate.stability is not None:
        return stability.judge(gate.stability, look)
    # An older operator reads a newer custom resource: what it does not know it cannot pass.
    return Finding(
        Verdict.INVALID,
        "UnknownGateKind",
        "this operator does not know this kind of gate: update the operator",
        limit="",
    )


def _explain_limit(result: GateResult, analysis: Analysis) -> GateResult:
    """Say so when a gate cannot pass within the declared number of requests."""
    if result.needed is None or (result.n or 0) + result.needed <= analysis.max_requests:
        return result
    return replace(
        result,
        message=f"{result.message}; that is more than the {analysis.max_requests} requests of "
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
    return decisive[0].reason, "; ".join(f"{item.name}: {item.message}" for item in decisive)
