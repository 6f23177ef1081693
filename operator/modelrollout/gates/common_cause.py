"""Common causes: what befalls stable at the same time is not the candidate's fault.

A slow node, a full disk or a dear hour strikes both arms. A candidate that is beyond an absolute
limit while stable is beyond it too is neither blamed nor passed: the gate stays undecided, and the
trial ends by `strategy.onInconclusive` unless the cause goes away. The excuse ends where the
candidate is shown to be worse than that stable. While nothing is known of a stable that there is,
nobody is blamed either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from modelrollout.gates.look import Look
from modelrollout.gates.sequential import two_arm_counts
from modelrollout.gates.shares import Share, judge_share
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["ENOUGH_AT_STABLE", "MOST_TIMES_STABLE", "REASON", "Alibi", "excused", "excused_share"]

ENOUGH_AT_STABLE: Final = 20
"""Requests at stable from which on its share of bad ones is taken at its word. It need not be
proved beyond the limit: doubt is enough to hold a candidate, and holding promotes none."""

MOST_TIMES_STABLE: Final = 1.0
"""Shown to be bad more than so many times as often as a bad stable, a candidate is blamed. A cause
that strikes both alike leaves them equal: no greater factor is needed, and a share of more than
half at stable could not be exceeded by a factor of 2."""

REASON: Final = "CommonCause"


@dataclass(frozen=True, slots=True)
class Alibi:
    """What both arms did in the same time."""

    candidate: Share
    stable: Share

    alike: Share | None
    """The candidate's requests counted as stable's are, to be set against them; None where the
    arms could not be alike even with equal models."""


def excused_share(
    finding: Finding,
    share: Share,
    alibi: Alibi | None,
    look: Look,
    *,
    design_effect: float = 1.0,
) -> Finding:
    """Return what is found of a share of the candidate's requests, in the light of stable's.

    Parameters
    ----------
    finding
        What the candidate's counts alone say.
    share
        Those counts.
    alibi
        The counts of both arms in the same time; None where they are not known.
    look
        Gives the errors that a verdict may have.
    design_effect
        How many times less a request says than an independent one would.
    """
    if finding.verdict is not Verdict.FAIL:
        return finding
    if look.evidence.stable_silent:
        return _withheld(
            finding,
            "StableUnknown",
            f"{share.counts}, limit {share.words.limit}. But nothing is known of stable at the "
            "moment: a cause that strikes both is not ruled out",
        )
    if alibi is None or not (_suffers(alibi.stable, look) and _beyond(alibi.candidate)):
        return finding
    at_stable = f"at stable {alibi.stable.counts} in the same time"
    if _worse(alibi, look, design_effect):
        return replace(finding, message=f"{finding.message}; {at_stable}, clearly fewer")
    counts = f"{share.counts}, limit {share.words.limit}"
    if (alibi.candidate.bad, alibi.candidate.requests) != (share.bad, share.requests):
        counts += f"; since the comparison with stable began {alibi.candidate.counts}"
    return excused(finding, f"{counts}, and {at_stable}")


def excused(finding: Finding, counts: str) -> Finding:
    """Return a Fail that stable shares: undecided, with the numbers of both arms."""
    return _withheld(
        finding, REASON, f"{counts}: a common cause, for which the candidate is not blamed"
    )


def _withheld(finding: Finding, reason: str, message: str) -> Finding:
    return replace(
        finding, verdict=Verdict.INCONCLUSIVE, reason=reason, message=message, needed=None
    )


def _beyond(share: Share) -> bool:
    return share.bad > share.most * share.requests


def _suffers(stable: Share, look: Look) -> bool:
    """Tell whether stable is beyond the limit: seen in enough requests, or proved in few."""
    if stable.requests >= ENOUGH_AT_STABLE:
        return _beyond(stable)
    return stable.requests > 0 and judge_share(stable, look).verdict is Verdict.FAIL


def _worse(alibi: Alibi, look: Look, design_effect: float) -> bool:
    """Tell whether the candidate is shown to be worse than a stable that is bad itself.

    That it is beyond the limit is shown already, so a wrong Fail takes two tests to be wrong.
    """
    if alibi.alike is None:
        return False
    judgement = two_arm_counts(
        alibi.alike.bad,
        alibi.alike.requests,
        alibi.stable.bad,
        alibi.stable.requests,
        max_ratio=MOST_TIMES_STABLE,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
        design_effect=design_effect,
    )
    return judgement.verdict is Verdict.FAIL
