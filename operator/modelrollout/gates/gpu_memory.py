"""GPU memory: how near its peak came to the end of it."""

from __future__ import annotations

from modelrollout.api.gate_types import GpuMemoryGate
from modelrollout.gates.facts import judge_fact, told_apart
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict

__all__ = ["KIND"]


def _judge(gate: GpuMemoryGate, look: Look) -> Finding:
    """Judge the largest share of the device's memory that was ever in use.

    Events of memory running out are rare, and few requests prove little of them. The peak is what
    announces them, and every request tells of it. It is a fact about the requests that were made:
    one peak beyond the limit, of the warm-up too, fails at once. It passes at the declared minimum
    of requests; larger pictures or batches than those that were asked for may still need more.
    """
    limit = f"<= {gate.max_percent} %"
    latest = look.evidence.latest
    if latest is None:
        missing = look.measured
        return missing.finding(limit) if isinstance(missing, Unmeasured) else _none(limit)
    peak = latest.peak_memory_share
    if peak is None:
        return _none(limit)
    if not 0 <= peak <= 1:
        return Finding(
            Verdict.INVALID, "NotAMeasurement", f"a peak of {peak} of the memory is none", limit
        )
    used = told_apart(100 * peak, gate.max_percent)
    return judge_fact(
        f"peak of {used} % of the GPU's memory, limit {gate.max_percent} %",
        exceeded=100 * peak > gate.max_percent,
        limit=limit,
        estimate=f"{used} %",
        look=look,
    )


def _none(limit: str) -> Finding:
    return Finding(
        Verdict.INVALID,
        "NoDeviceMemory",
        "the server reports no GPU memory: it runs on a CPU, where `gpuMemory` cannot be judged",
        limit,
    )


KIND = Kind(GpuMemoryGate, _judge)
