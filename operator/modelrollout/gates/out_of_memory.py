"""Out of memory: a hard limit on a count of events."""

from __future__ import annotations

from modelrollout.api.gate_types import OutOfMemoryGate
from modelrollout.gates.look import Look, Unmeasured
from modelrollout.gates.sequential import rate_upper_bound
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["judge"]


def judge(gate: OutOfMemoryGate, look: Look) -> Finding:
    """Count the times that the server or one of its containers ran out of memory.

    All events since the pod began count, those of the warm-up too. One event too many fails at
    once, whatever else is known. Few events in few requests prove little: the message says what.
    """
    limit = f"<= {gate.max_count}"
    latest = look.evidence.latest
    by_server = 0 if latest is None else latest.out_of_memory
    by_kernel = look.evidence.container_out_of_memory
    if not (is_count(by_server) and is_count(by_kernel)):
        return Finding(
            Verdict.INVALID, "NotACount", f"{by_server} + {by_kernel} is not a count", limit
        )
    count = int(by_server + by_kernel)
    events = f"out of memory {_times(count)} ({by_server} in the server, {by_kernel} by the kernel)"
    if count > gate.max_count:
        return Finding(
            Verdict.FAIL,
            "OutOfMemory",
            f"{events}, limit {gate.max_count}",
            limit,
            n=look.requests,
            estimate=str(count),
        )
    if isinstance(look.measured, Unmeasured):
        return look.measured.finding(limit)
    missing = look.min_requests - look.requests
    if missing > 0 or look.requests == 0:
        return Finding(
            Verdict.INCONCLUSIVE if look.requests else Verdict.INVALID,
            "MoreRequestsNeeded" if look.requests else "NoRequests",
            f"{events} in {look.requests} requests: passes at {look.min_requests} requests "
            f"(`analysis.minRequests`) with at most {gate.max_count}",
            limit,
            n=look.requests,
            estimate=str(count),
            needed=max(missing, 1),
        )
    bound = rate_upper_bound(count, look.requests, alpha=look.alpha_pass)
    return Finding(
        Verdict.PASS,
        "WithinLimit",
        f"{events} in {look.requests} requests, limit {gate.max_count}. "
        "That is no proof of absence: "
        f"with {100 * (1 - look.alpha_pass):.4g} % confidence it happens "
        f"in fewer than {_one_in(bound)} requests",
        limit,
        n=look.requests,
        estimate=str(count),
        interval=f"fewer than {_one_in(bound)} requests",
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _one_in(rate: float) -> str:
    """Say a rate as a fraction that is not smaller than it."""
    return f"1 in {max(1, int(1 / rate))}"
