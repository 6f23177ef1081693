"""What gates that compare the candidate with stable have in common: margins, and the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelrollout.gates.look import Look
from modelrollout.gates.sequential import FEWEST_REQUESTS, Judgement
from modelrollout.gates.shares import NOTABLE_EFFECT, confidence, in_bursts
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["PASS_MARGIN_FACTOR", "ChangeWords", "Margins", "change_finding"]

PASS_MARGIN_FACTOR: Final = 2.5
"""Increase that is ruled out to pass, in units of the one that fails. Two margins make both errors
small: a candidate at the first one is seldom failed, one at the second is seldom passed, and in
between either may happen."""

_MULTIPLE: Final = 3.0
"""From this ratio on it is said as a multiple."""


@dataclass(frozen=True, slots=True)
class Margins:
    """The increases between which a candidate is in the grey zone, as ratios."""

    fail: float
    """Shown to be beyond it, a candidate fails: 1.10 for +10 %."""

    passing: float
    """Shown to be below it, a candidate passes."""

    @classmethod
    def of(cls, increase_percent: int, pass_percent: float | None = None) -> Margins:
        """Return the margins that a gate declares in percent."""
        passing = PASS_MARGIN_FACTOR * increase_percent if pass_percent is None else pass_percent
        return cls(fail=1 + increase_percent / 100, passing=1 + passing / 100)


@dataclass(frozen=True, slots=True)
class ChangeWords:
    """How a gate speaks of the candidate beside stable."""

    more: str
    """After a percentage: 'slower'."""

    less: str
    """'faster'."""

    as_much: str
    """'as slow', for a multiple."""

    same: str
    """'as fast as stable'."""

    because: str = "in bursts"
    """Why requests may count as fewer."""

    def of(self, ratio: float) -> str:
        """Say a ratio: '4 % slower', '3.2 x as slow'."""
        text = _percent(abs(ratio - 1))
        if text == "0":
            return "no change"
        if ratio >= _MULTIPLE:
            return f"{ratio:.3g} x {self.as_much}"
        return f"{text} % {self.more if ratio > 1 else self.less}"

    def beside_stable(self, ratio: float) -> str:
        """Say a ratio as a comparison: '4 % slower than stable'."""
        said = self.of(ratio)
        if said == "no change":
            return self.same
        return f"{said} {'as' if ratio >= _MULTIPLE else 'than'} stable"


def change_finding(
    judgement: Judgement,
    margins: Margins,
    words: ChangeWords,
    look: Look,
    *,
    n_stable: int,
    design_effect: float = 1.0,
) -> Finding:
    """Return what a comparison found, in words.

    Parameters
    ----------
    judgement
        Its numbers are ratios, and it counts the candidate's requests.
    margins, words
        What was asked, and how it is spoken of.
    look
        Gives the errors that the verdict may have.
    n_stable
        Requests of stable in it.
    design_effect
        How many times less a request says than an independent one would.
    """
    limit = f"<= stable +{_margin(margins.fail)} %"
    if judgement.n is None or judgement.estimate is None:
        return Finding(
            judgement.verdict, judgement.reason, judgement.message, limit, needed=judgement.needed
        )
    interval = None
    enough = min(judgement.n, n_stable) >= FEWEST_REQUESTS
    if enough and judgement.low is not None and judgement.high is not None:
        interval = f"{words.of(judgement.low)} to {words.of(judgement.high)}"
    notes = [] if interval is None else [f"between {interval.replace(' to ', ' and ')}"]
    if design_effect > NOTABLE_EFFECT:
        notes.append(in_bursts(judgement.n, design_effect, because=words.because))
    shown = f"{words.beside_stable(judgement.estimate)} over {judgement.n} requests" + (
        f" ({'; '.join(notes)})" if notes else ""
    )
    return Finding(
        verdict=judgement.verdict,
        reason=judgement.reason,
        message=f"{shown}: {_outcome(judgement, margins, look, n_stable)}",
        limit=limit,
        n=judgement.n,
        estimate=words.of(judgement.estimate),
        interval=interval,
        needed=judgement.needed,
    )


def _outcome(judgement: Judgement, margins: Margins, look: Look, n_stable: int) -> str:
    beyond, below = f"+{_margin(margins.fail)} %", f"+{_margin(margins.passing)} %"
    match judgement.verdict:
        case Verdict.PASS:
            return f"below {below}, with {confidence(look.alpha_pass)}"
        case Verdict.FAIL:
            return f"beyond {beyond}, with {confidence(look.alpha_fail)}"
        case _ if n_stable < FEWEST_REQUESTS:
            soon = (
                f"a comparison takes {FEWEST_REQUESTS} requests of each arm, stable has {n_stable}"
            )
        case _ if judgement.n is not None and judgement.n < FEWEST_REQUESTS:
            soon = f"a comparison takes {FEWEST_REQUESTS} requests of each arm"
        case _ if judgement.needed is not None and judgement.n is not None:
            soon = f"passes at about {judgement.n + judgement.needed} requests like these"
        case _:
            soon = "not decided yet"
    return f"{soon}; fails beyond {beyond}, passes below {below}"


def _margin(ratio: float) -> str:
    return f"{100 * (ratio - 1):.4g}"


def _percent(share: float) -> str:
    """Write a share in percent: one digit after the point below 10, none from there on."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}".removesuffix(".0")  # noqa: PLR2004
