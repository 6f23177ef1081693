"""One look at the evidence: what every kind of gate is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from modelrollout.api.spec import Analysis
from modelrollout.gates.evidence import Comparison, Evidence
from modelrollout.gates.scalars import shown
from modelrollout.gates.totals import LARGEST_COUNT, Incomparable, Totals, is_count
from modelrollout.gates.traffic_share import traffic_skew
from modelrollout.gates.verdict import Unmeasured, Verdict

__all__ = ["UNREADABLE", "Look", "not_evidence", "requests_of"]

UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading evidence raises when a part of it is missing or of another type."""


@dataclass(frozen=True, slots=True)
class Look:
    """The evidence of both arms, and the errors that a verdict on it may have."""

    evidence: Evidence
    measured: Totals | Unmeasured
    """What happened at the candidate since the warm-up ended."""

    compared: Comparison | Unmeasured
    """What happened at both arms in the same time."""

    together: Comparison | None
    """The same, where it is known, whatever traffic the arms got."""

    requests: int
    """Requests at the candidate since the warm-up ended that count: served, or failed by the
    server's fault."""

    min_requests: int
    max_requests: int
    alpha_pass: float
    """Largest probability that a bad candidate ever passes a gate. It needs no split over gates:
    a candidate that is bad on one of them has to pass that one."""

    alpha_fail: float
    """Largest probability that a good candidate ever fails a gate; the shares of all enforced
    gates, in all stages, add up to the error budget."""

    @classmethod
    def at(cls, evidence: Evidence, analysis: Analysis, *, tests: int) -> Look:
        """Return a look in which so many `tests` share the error budget for Fail."""
        alpha = 1 - analysis.confidence_percent / 100
        measured, compared = _measured(evidence), _compared(evidence)
        together: Comparison | None = None
        requests = 0 if isinstance(measured, Unmeasured) else requests_of(measured)
        if isinstance(compared, Comparison):
            together = compared
            skew = _skew(evidence.declared_share, compared)
            if skew is not None:
                compared = skew
                measured = measured if isinstance(measured, Unmeasured) else skew
        return cls(
            evidence=evidence,
            measured=measured,
            compared=compared,
            together=together,
            requests=requests,
            min_requests=analysis.min_requests,
            max_requests=analysis.max_requests,
            alpha_pass=alpha,
            alpha_fail=alpha / max(1, tests),
        )

    def split(self, parts: int) -> Look:
        """Return the look for one of several limits of one gate, which share its error budget."""
        return replace(self, alpha_fail=self.alpha_fail / max(1, parts))

    def design_effect(self, measure: str) -> float:
        """Return how many times less a request says than an independent one would.

        Not a number when that is no such factor: what is judged by it is then Invalid.
        """
        effect = self.evidence.design_effects.get(measure, 1.0)
        return float(effect) if 1 <= effect <= LARGEST_COUNT else math.nan


def requests_of(totals: Totals) -> int:
    """Return the requests that were served, or failed by the server's fault."""
    return int(totals.succeeded + totals.failed)


def not_evidence(error: Exception) -> str:
    """Say that evidence could not be read."""
    return f"a part of the evidence is not what it should be: {error}"


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
    except UNREADABLE as error:
        return Unmeasured(Verdict.INVALID, "NotEvidence", not_evidence(error))


def _skew(declared: float | None, compared: Comparison) -> Unmeasured | None:
    try:
        return traffic_skew(declared, compared)
    except UNREADABLE as error:
        return Unmeasured(Verdict.INVALID, "NotAShare", not_evidence(error))


def _compared(evidence: Evidence) -> Comparison | Unmeasured:
    if evidence.comparison is None:
        return Unmeasured(
            Verdict.INVALID,
            "NoComparison",
            evidence.comparison_problem
            or "there are no counters of stable to compare with, from the same time",
        )
    try:
        for arm in (evidence.comparison.candidate, evidence.comparison.stable):
            # Log moments are looked at where they are used. What rounding may have done to those
            # of a difference is known to the counters that it is a difference of, not to it.
            replace(arm, log_moments={}).check()
    except Incomparable as error:
        return Unmeasured(Verdict.INVALID, error.reason, error.message)
    except UNREADABLE as error:
        return Unmeasured(Verdict.INVALID, "NotEvidence", not_evidence(error))
    pods = evidence.comparison.stable_pods
    if not (is_count(pods) and pods):
        told = f"{shown(pods)} pods of stable are no number"
        return Unmeasured(Verdict.INVALID, "NotACount", told)
    return evidence.comparison
