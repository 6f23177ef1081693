"""What gates on a share of requests have in common: the test, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelrollout.gates.look import Look
from modelrollout.gates.sequential import Judgement, proportion
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["NOTABLE_EFFECT", "Share", "ShareWords", "confidence", "in_bursts", "judge_share"]

NOTABLE_EFFECT: Final = 1.5
"""Beyond it the message says why the count of requests says less than it seems to."""


@dataclass(frozen=True, slots=True)
class ShareWords:
    """How a gate speaks of the requests it counts."""

    bad: str
    """After a number: 'slower than 1700 ms'."""

    each: str
    """After 'if none of the next 34': 'is slow'."""

    limit: str
    """The limit with its unit: '5 %'."""

    gate_limit: str
    """The limit as the gate declares it: 'p95 <= 1700 ms'."""


@dataclass(frozen=True, slots=True)
class Share:
    """Bad requests among all of one arm, and how many there may be."""

    bad: int
    requests: int
    most: float
    """Largest share of bad ones allowed, between 0 and 1."""

    words: ShareWords

    @property
    def counts(self) -> str:
        """The counts in words: '1 of 96 slower than 1700 ms'."""
        return f"{self.bad} of {self.requests} {self.words.bad}"


def judge_share(share: Share, look: Look, *, design_effect: float = 1.0) -> Finding:
    """Judge the share of bad requests against the largest that is allowed.

    Parameters
    ----------
    share
        The counts and the limit.
    look
        Gives the errors that the verdict may have.
    design_effect
        How many times less a request says than an independent one would.
    """
    judgement = proportion(
        share.bad,
        share.requests,
        share.most,
        alpha_pass=look.alpha_pass,
        alpha_fail=look.alpha_fail,
        design_effect=design_effect,
    )
    return Finding(
        verdict=judgement.verdict,
        reason=judgement.reason,
        message=_message(judgement, share, look, design_effect),
        limit=share.words.gate_limit,
        n=judgement.n,
        estimate=_percent(judgement.estimate),
        interval=_interval(judgement),
        needed=judgement.needed,
    )


def confidence(alpha: float) -> str:
    """Say how sure a verdict is whose error is at most `alpha`."""
    return f"{100 * (1 - alpha):.4g} % confidence"


def in_bursts(requests: int, design_effect: float, *, because: str = "in bursts") -> str:
    """Say that requests count as fewer, because bad ones do not come one by one."""
    return f"{because}: {requests} requests count as {max(1, int(requests / design_effect))}"


def _message(judgement: Judgement, share: Share, look: Look, design_effect: float) -> str:
    words = share.words
    if judgement.n is None:
        more = f"; passes at {judgement.needed} if none {words.each}" if judgement.needed else ""
        return judgement.message + more
    bursts = f" ({in_bursts(judgement.n, design_effect)})" if design_effect > NOTABLE_EFFECT else ""
    counts = f"{share.counts}{bursts}, limit {words.limit}"
    match judgement.verdict:
        case Verdict.PASS:
            return f"{counts}: kept, with {confidence(look.alpha_pass)}"
        case Verdict.FAIL:
            return f"{counts}: exceeded, with {confidence(look.alpha_fail)}"
        case _ if judgement.needed is not None:
            return (
                f"{counts}: passes at {judgement.n + judgement.needed} requests "
                f"if none of the next {judgement.needed} {words.each}"
            )
        case _:
            return f"{counts}: not decided yet"


def _interval(judgement: Judgement) -> str | None:
    if judgement.low is None or judgement.high is None:
        return None
    return f"{_percent(judgement.low)} to {_percent(judgement.high)}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.3g} %"
