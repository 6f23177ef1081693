"""Out of memory: a hard limit on a count of events, and how often against stable."""

from __future__ import annotations

from modelrollout.api.gate_types import OutOfMemoryGate
from modelrollout.gates.common_cause import excused
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look, requests_of
from modelrollout.gates.sequential import Judgement, rate_upper_bound, two_arm_counts
from modelrollout.gates.shares import confidence
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict, all_of

__all__ = ["KIND"]


def _judge(gate: OutOfMemoryGate, look: Look) -> Finding:
    absolute = _count(gate, look)
    if gate.max_times_stable is None or absolute.verdict is Verdict.FAIL:
        return absolute
    return all_of([absolute, _frequency(gate.max_times_stable, look)])


# -- absolute --------------------------------------------------------------------------------------
def _count(gate: OutOfMemoryGate, look: Look) -> Finding:
    """Judge the times that the server or one of its containers ran out of memory.

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
        return _exceeded(gate, events, count, look)
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
        f"with {confidence(look.alpha_pass)} it happens in fewer than {_one_in(bound)} requests",
        limit,
        n=look.requests,
        estimate=str(count),
        interval=f"fewer than {_one_in(bound)} requests",
        needed=0,
    )


def _exceeded(gate: OutOfMemoryGate, events: str, count: int, look: Look) -> Finding:
    """Return a Fail, unless stable was beyond the limit in the same time and no less often.

    Only events in the time of the comparison can have a cause in common with stable's: not those
    of the warm-up or the repeats, nor those that the kernel counts since the attempt began. And a
    count does not shrink again as a share does: once stable is beyond the limit it stays so, which
    excuses no candidate that runs out of memory far more often.
    """
    finding = Finding(
        Verdict.FAIL,
        "OutOfMemory",
        f"{events}, limit {gate.max_count}",
        f"<= {gate.max_count}",
        n=look.requests,
        estimate=str(count),
    )
    together = look.together
    if together is None or together.candidate.out_of_memory != count:
        return finding
    at_stable = together.stable.out_of_memory
    if look.evidence.container_out_of_memory or at_stable <= gate.max_count:
        return finding
    if _ratio(gate.max_times_stable or 1, together, look).verdict is Verdict.FAIL:
        return finding
    return excused(finding, f"{finding.message}, and stable {_times(at_stable)} in the same time")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _often(count: int) -> str:
    return _times(count) if count else "never"


def _one_in(rate: float) -> str:
    """Say a rate as a fraction that is not smaller than it."""
    return f"1 in {max(1, int(1 / rate))}"


# -- relative --------------------------------------------------------------------------------------
def _frequency(times: int, look: Look) -> Finding:
    """Judge how often the candidate runs out of memory per request, in units of stable's rate.

    Events that are allowed by their number may still be more than stable has: a few in the
    requests of the candidate against none in those of stable. The test can show that. That it is
    not so, few events cannot show: the candidate passes without one, or at an observed rate
    within the limit.
    """
    limit = f"<= {times} x stable's rate"
    compared = look.compared
    if isinstance(compared, Unmeasured):
        return compared.finding(limit)
    judgement = _ratio(times, compared, look)
    if judgement.verdict is Verdict.INVALID:
        return Finding(Verdict.INVALID, judgement.reason, judgement.message, limit)
    candidate, stable = compared.candidate, compared.stable
    n, n_stable = requests_of(candidate), requests_of(stable)
    counts = (
        f"{_often(candidate.out_of_memory)} in {n} requests, "
        f"stable {_often(stable.out_of_memory)} in {n_stable}"
    )
    within = candidate.out_of_memory * n_stable <= times * stable.out_of_memory * n
    needed: int | None = None
    if judgement.verdict is Verdict.FAIL:
        verdict, reason = Verdict.FAIL, "LimitExceeded"
        message = f"{counts}: more than {times} x as often, with {confidence(look.alpha_fail)}"
    elif within:
        verdict, reason, needed = Verdict.PASS, "WithinLimit", 0
        message = f"{counts}: not seen more than {times} x as often"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        message = f"{counts}: more than {times} x as often, though it may be by chance"
    return Finding(verdict, reason, message, limit, n=n, needed=needed)


def _ratio(times: int, compared: Comparison, look: Look) -> Judgement:
    return two_arm_counts(
        compared.candidate.out_of_memory,
        requests_of(compared.candidate),
        compared.stable.out_of_memory,
        requests_of(compared.stable),
        max_ratio=times,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
    )


KIND = Kind(OutOfMemoryGate, _judge)
