"""Latency: a share of the requests must be answered within a time."""

from __future__ import annotations

from collections.abc import Iterable

from modelrollout.api.gate_types import LatencyGate
from modelrollout.gates.look import Look, Unmeasured
from modelrollout.gates.shares import ShareWords, judge_share
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["judge"]


def judge(gate: LatencyGate, look: Look) -> Finding:
    """Judge the requests that were not answered in time.

    "The 95th percentile is at most 1700 ms" says "at most 5 % of requests take longer", which two
    counts show exactly when the limit is an edge of the server's histogram. A request that failed
    by the server's fault was not answered in time either, however soon it failed: a server that
    gives up on what it cannot do quickly is not a fast one.
    """
    limit = f"p{gate.percentile} <= {gate.max_milliseconds} ms"
    measured = look.measured
    if isinstance(measured, Unmeasured):
        return measured.finding(limit)
    within = measured.within.get(gate.max_milliseconds)
    if within is None:
        return Finding(
            Verdict.INVALID,
            "ThresholdNotABucketEdge",
            f"{gate.max_milliseconds} ms is not an edge of the server's latency histogram"
            f"{_nearest(gate.max_milliseconds, measured.within)}: start the server with "
            "this limit among its edges",
            limit,
        )
    if within > measured.timed:
        return Finding(
            Verdict.INVALID,
            "InconsistentCounters",
            f"{within} requests took at most {gate.max_milliseconds} ms, "
            f"but only {measured.timed} were timed",
            limit,
        )
    words = ShareWords(
        bad=f"slower than {gate.max_milliseconds} ms{' or failed' if measured.failed else ''}",
        each="is slow or fails" if measured.failed else "is slow",
        limit=f"{100 - gate.percentile} %",
        gate_limit=limit,
    )
    requests = measured.timed + measured.failed
    share = (100 - gate.percentile) / 100
    return judge_share(requests - within, requests, share, words, look)


def _nearest(limit: int, edges: Iterable[int]) -> str:
    """Name the edges beside the limit."""
    ordered = sorted(edges)
    below = [edge for edge in ordered if edge < limit][-1:]
    above = [edge for edge in ordered if edge > limit][:1]
    near = " and ".join(str(edge) for edge in below + above)
    return f" (the nearest are {near})" if near else ""
