"""Errors: the share of requests that fail by the server's fault."""

from __future__ import annotations

from modelrollout.api.gate_types import ErrorsGate
from modelrollout.gates.blocks import ERRORS
from modelrollout.gates.common_cause import Alibi, excused_share
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look, requests_of
from modelrollout.gates.shares import Share, ShareWords, judge_share
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict

__all__ = ["KIND"]


def _judge(gate: ErrorsGate, look: Look) -> Finding:
    """Judge the failed requests among those that succeeded or failed by the server's fault."""
    limit = f"<= {gate.max_percent} %"
    measured = look.measured
    if isinstance(measured, Unmeasured):
        return measured.finding(limit)
    share, effect = _share(gate, limit, measured), look.design_effect(ERRORS)
    finding = (
        _none_allowed(share) if share.most == 0 else judge_share(share, look, design_effect=effect)
    )
    alibi = None
    if look.together is not None:
        ours, theirs = (
            _share(gate, limit, arm) for arm in (look.together.candidate, look.together.stable)
        )
        alibi = Alibi(ours, theirs, alike=ours)
    return excused_share(finding, share, alibi, look, design_effect=effect)


def _share(gate: ErrorsGate, limit: str, totals: Totals) -> Share:
    return Share(
        bad=totals.failed,
        requests=requests_of(totals),
        most=float(gate.max_percent) / 100,
        words=ShareWords(
            bad="failed", each="fails", limit=f"{gate.max_percent} %", gate_limit=limit
        ),
    )


def _none_allowed(share: Share) -> Finding:
    """Judge against a limit of 0 %: one failure refutes it, no number of requests proves it."""
    if share.bad:
        return Finding(
            Verdict.FAIL,
            "LimitExceeded",
            f"{share.counts}, limit 0 %",
            share.words.gate_limit,
            n=share.requests,
        )
    return Finding(
        Verdict.INVALID,
        "LimitNotProvable",
        "no number of requests can show that none fails: set `errors.maxPercent` above 0",
        share.words.gate_limit,
        n=share.requests,
    )


KIND = Kind(ErrorsGate, _judge)
