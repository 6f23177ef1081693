"""Whether a gate can pass at all within the requests that are declared: a lint before any trial."""

from __future__ import annotations

from collections.abc import Sequence

from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Analysis
from modelrollout.gates.sequential import proportion

__all__ = ["infeasible_gate"]


def infeasible_gate(gates: Sequence[Gate], analysis: Analysis) -> str | None:
    """Return why some enforced gate could never pass, or ``None`` when all can.

    A gate on a share of requests needs a number of them even if none is bad. A trial that can end
    only as inconclusive is refused before a GPU is spent on it.
    """
    for gate in gates:
        found = None if gate.mode is GateMode.OBSERVE else _problem(gate, analysis)
        if found is not None:
            return f"gate '{gate.name}' can never pass: {found}"
    return None


def _problem(gate: Gate, analysis: Analysis) -> str | None:
    share = _allowed_share(gate)
    if share is None:
        return None
    if share <= 0:
        return "no number of requests proves that none fails; set `errors.maxPercent` above 0"
    if share >= 1:
        return None
    alpha = 1 - analysis.confidence_percent / 100
    needed = proportion(0, 0, share, alpha_pass=alpha, alpha_fail=alpha).needed
    if needed is None or needed <= analysis.max_requests:
        return None
    return (
        f"it needs {needed} requests if none is bad, and `analysis.maxRequests` is "
        f"{analysis.max_requests}; raise that, or relax the gate"
    )


def _allowed_share(gate: Gate) -> float | None:
    """Return the share of requests that may be bad, for gates that limit one."""
    if gate.latency is not None:
        return 1 - gate.latency.percentile / 100
    if gate.errors is not None:
        return float(gate.errors.max_percent) / 100
    return None
