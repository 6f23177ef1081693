"""Gates on facts: rare events and peaks, which decide without statistics."""

from __future__ import annotations

from modelrollout.api.gate_types import GpuMemoryGate, OutOfMemoryGate
from modelrollout.gates import special
from modelrollout.gates.lint.outlook import Conditions, Outlook
from modelrollout.gates.look import requests_of

__all__ = ["gpu_memory_outlook", "out_of_memory_outlook"]


def out_of_memory_outlook(gate: OutOfMemoryGate, conditions: Conditions) -> Outlook:
    """Return what is to be expected of a limit on the number of events.

    Events are taken to come one by one at stable's rate (Poisson); those of the warm-up count.
    """
    fewest = conditions.analysis.min_requests
    compared = "" if gate.max_times_stable is None else ", and counters of stable to compare with"
    text = (
        f"needs {fewest} requests (`analysis.minRequests`) with at most {gate.max_count} "
        f"events{compared}"
    )
    stable = conditions.stable
    if stable is None:
        return Outlook(text, fewest)
    requests, events = requests_of(stable), stable.out_of_memory
    beyond = float(special.gammainc(gate.max_count + 1, conditions.expected * events / requests))
    return Outlook(
        text,
        fewest,
        fewest if beyond < 1 else None,
        beyond,
        0.0,
        f"out of memory {'once' if events == 1 else f'{events} times'} in {requests} requests, "
        f"limit {gate.max_count} in about {conditions.expected}",
        "raise `outOfMemory.maxCount`",
    )


def gpu_memory_outlook(gate: GpuMemoryGate, conditions: Conditions) -> Outlook:
    """Return what is to be expected of a limit on the peak of GPU memory in use."""
    fewest = conditions.analysis.min_requests
    text = f"needs {fewest} requests (`analysis.minRequests`) without a peak beyond the limit"
    peak = None if conditions.stable is None else conditions.stable.peak_memory_share
    if peak is None:
        return Outlook(text, fewest)
    beyond = 100 * peak > gate.max_percent
    return Outlook(
        text,
        fewest,
        None if beyond else fewest,
        1.0 if beyond else 0.0,
        0.0,
        f"a peak of {100 * peak:.3g} % of the GPU's memory, limit {gate.max_percent} %",
        "raise `gpuMemory.maxPercent`",
    )
