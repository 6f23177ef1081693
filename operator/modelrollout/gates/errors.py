"""Errors: the share of requests that fail by the server's fault."""

from __future__ import annotations

from modelrollout.api.gate_types import ErrorsGate
from modelrollout.gates.look import Look, Unmeasured
from modelrollout.gates.shares import ShareWords, judge_share
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["judge"]


def judge(gate: ErrorsGate, look: Look) -> Finding:
    """Judge the failed requests among those that succeeded or failed by the server's fault."""
    share = float(gate.max_percent) / 100
    limit = f"<= {gate.max_percent} %"
    measured = look.measured
    if isinstance(measured, Unmeasured):
        return measured.finding(limit)
    failed, requests = measured.failed, measured.succeeded + measured.failed
    if share == 0:
        return _none_allowed(failed, requests, limit)
    words = ShareWords(bad="failed", each="fails", limit=f"{gate.max_percent} %", gate_limit=limit)
    return judge_share(failed, requests, share, words, look)


def _none_allowed(failed: int, requests: int, limit: str) -> Finding:
    """Judge against a limit of 0 %: one failure refutes it, no number of requests proves it."""
    if failed:
        return Finding(
            Verdict.FAIL,
            "LimitExceeded",
            f"{failed} of {requests} failed, limit 0 %",
            limit,
            n=requests,
        )
    return Finding(
        Verdict.INVALID,
        "LimitNotProvable",
        "no number of requests can show that none fails: set `errors.maxPercent` above 0",
        limit,
        n=requests,
    )
