"""Common causes: what befalls stable at the same time is not the candidate's fault.

A slow node, a full disk or a dear hour strikes both arms. A candidate that is beyond an absolute
limit while stable is beyond it too is neither blamed nor passed: the gate stays undecided, and the
trial ends by `strategy.onInconclusive` unless the cause goes away. How much worse than a bad stable
a candidate is, is for gates that compare them to find (`latency.maxIncreasePercent`,
`outOfMemory.maxTimesStable`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from modelrollout.gates.look import Look
from modelrollout.gates.shares import Share, judge_share
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["FEWEST_REQUESTS", "REASON", "excused", "excused_share"]

FEWEST_REQUESTS: Final = 20
"""Requests at stable from which on its share of bad ones is taken at its word. It need not be
proved beyond the limit: doubt is enough to hold a candidate, and holding promotes none."""

REASON: Final = "CommonCause"


def excused_share(finding: Finding, candidate: Share, stable: Share | None, look: Look) -> Finding:
    """Return what is found of a share of the candidate's requests, in the light of stable's.

    Parameters
    ----------
    finding
        What the candidate's counts alone say.
    candidate
        Its counts.
    stable
        Stable's counts from the same time; None where they are not known.
    look
        Gives the errors that a verdict may have.
    """
    if finding.verdict is not Verdict.FAIL or stable is None or stable.requests == 0:
        return finding
    seen = stable.requests >= FEWEST_REQUESTS and stable.bad > stable.most * stable.requests
    if not seen and judge_share(stable, look).verdict is not Verdict.FAIL:
        return finding
    words = candidate.words
    return excused(
        finding,
        f"{candidate.counts}, limit {words.limit}, and at stable {stable.counts} in the same time",
    )


def excused(finding: Finding, counts: str) -> Finding:
    """Return a Fail that stable shares: undecided, with the numbers of both arms."""
    return replace(
        finding,
        verdict=Verdict.INCONCLUSIVE,
        reason=REASON,
        message=f"{counts}: a common cause, for which the candidate is not blamed",
        needed=None,
    )
