"""Whether a gate can pass at all within the requests that are declared: a lint before any trial."""

from __future__ import annotations

from collections.abc import Sequence

from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Analysis
from modelrollout.gates.sequential import FEWEST_REQUESTS, proportion
from modelrollout.gates.totals import LARGEST_COUNT

__all__ = ["infeasible_gate"]


def infeasible_gate(gates: Sequence[Gate], analysis: Analysis) -> str | None:
    """Return why some enforced gate could never pass, or ``None`` when all can.

    A gate on a share of requests needs a number of them even if none is bad, and the others need
    some too. A trial that can end only as inconclusive is refused before a GPU is spent on it.
    """
    for gate in gates:
        found = None if gate.mode is GateMode.OBSERVE else _problem(gate, analysis)
        if found is not None:
            return f"gate '{gate.name}' can never pass: {found}"
    return None


def _problem(gate: Gate, analysis: Analysis) -> str | None:
    if gate.latency is not None and gate.latency.percentile is not None:
        return _share_problem((100 - gate.latency.percentile) / 100, analysis)
    if gate.latency is not None:
        return _too_many(FEWEST_REQUESTS, analysis, "for a mean that can be relied on")
    if gate.errors is not None:
        share = float(gate.errors.max_percent) / 100
        if share <= 0:
            return "no number of requests proves that none fails; set `errors.maxPercent` above 0"
        if share >= 1:
            return "a limit of 100 % or more is none; set `errors.maxPercent` below 100"
        return _share_problem(share, analysis)
    if gate.out_of_memory is not None or gate.gpu_memory is not None:
        return _too_many(analysis.min_requests, analysis, "as `analysis.minRequests`")
    if gate.cost is not None:
        return _too_many(FEWEST_REQUESTS, analysis, "for a mean that can be relied on")
    if gate.stability is not None:
        return None  # its prompts come before the requests that are declared
    return "this operator does not know its kind; update the operator"


def _share_problem(share: float, analysis: Analysis) -> str | None:
    alpha = 1 - analysis.confidence_percent / 100
    needed = proportion(0, 0, share, alpha_pass=alpha, alpha_fail=alpha).needed
    return _too_many(needed or LARGEST_COUNT, analysis, "if none is bad")


def _too_many(needed: int, analysis: Analysis, why: str) -> str | None:
    if needed <= analysis.max_requests:
        return None
    return (
        f"it needs {needed} requests {why}, and `analysis.maxRequests` is "
        f"{analysis.max_requests}; raise that, or relax the gate"
    )
