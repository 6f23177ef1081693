"""What gates on a share of requests have in common: the test, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.gates.look import Look
from modelrollout.gates.sequential import Judgement, proportion
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["ShareWords", "judge_share"]


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


def judge_share(k: int, n: int, p0: float, words: ShareWords, look: Look) -> Finding:
    """Judge `k` bad ones of `n` requests against the largest share `p0`."""
    judgement = proportion(k, n, p0, alpha_pass=look.alpha_pass, alpha_fail=look.alpha_fail)
    return Finding(
        verdict=judgement.verdict,
        reason=judgement.reason,
        message=_message(judgement, k, words, look),
        limit=words.gate_limit,
        n=judgement.n,
        estimate=_percent(judgement.estimate),
        interval=_interval(judgement),
        needed=judgement.needed,
    )


def _message(judgement: Judgement, k: int, words: ShareWords, look: Look) -> str:
    if judgement.n is None:
        more = f"; passes at {judgement.needed} if none {words.each}" if judgement.needed else ""
        return judgement.message + more
    counts = f"{k} of {judgement.n} {words.bad}, limit {words.limit}"
    match judgement.verdict:
        case Verdict.PASS:
            return f"{counts}: kept, with {_confidence(look.alpha_pass)} confidence"
        case Verdict.FAIL:
            return f"{counts}: exceeded, with {_confidence(look.alpha_fail)} confidence"
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


def _confidence(alpha: float) -> str:
    return f"{100 * (1 - alpha):.4g} %"
