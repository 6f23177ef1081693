"""One look at the evidence: what every kind of gate is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api.spec import Analysis
from modelrollout.gates.evidence import Evidence
from modelrollout.gates.totals import Incomparable, Totals
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["Look", "Unmeasured"]


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Why there is nothing to judge."""

    verdict: Verdict
    reason: str
    message: str

    def finding(self, limit: str) -> Finding:
        """Return it as what a gate finds."""
        return Finding(self.verdict, self.reason, self.message, limit)


@dataclass(frozen=True, slots=True)
class Look:
    """The evidence, and the errors that a verdict on it may have."""

    evidence: Evidence
    measured: Totals | Unmeasured
    """What happened since the warm-up ended."""

    min_requests: int
    alpha_pass: float
    """Largest probability that a bad candidate ever passes a gate. It needs no split over gates:
    a candidate that is bad on one of them has to pass that one."""

    alpha_fail: float
    """Largest probability that a good candidate ever fails a gate; the shares of all enforced
    gates add up to the error budget."""

    @classmethod
    def at(cls, evidence: Evidence, analysis: Analysis, *, enforced: int) -> Look:
        """Return a look in which `enforced` gates share the error budget for Fail."""
        alpha = 1 - analysis.confidence_percent / 100
        return cls(
            evidence=evidence,
            measured=_measured(evidence),
            min_requests=analysis.min_requests,
            alpha_pass=alpha,
            alpha_fail=alpha / max(1, enforced),
        )

    @property
    def requests(self) -> int:
        """Requests that count: served, or failed by the server's fault."""
        if isinstance(self.measured, Unmeasured):
            return 0
        return self.measured.succeeded + self.measured.failed


def _measured(evidence: Evidence) -> Totals | Unmeasured:
    if evidence.latest is None:
        return Unmeasured(
            Verdict.INVALID,
            "NoSeries",
            evidence.problem or "Prometheus has no counters of the candidate's pod",
        )
    if evidence.baseline is None:
        return Unmeasured(
            Verdict.INCONCLUSIVE, "WarmingUp", "the requests of the warm-up do not count"
        )
    try:
        return evidence.latest.since(evidence.baseline)
    except Incomparable as error:
        return Unmeasured(Verdict.INVALID, error.reason, error.message)
