"""What is to be expected of a gate, and under which conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from modelrollout.api.spec import Analysis
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import Unmeasured

__all__ = [
    "FALSE_ROLLBACK",
    "FEWEST_AT_STABLE",
    "MOST_REQUESTS",
    "MOST_SECONDS",
    "UNDECIDED",
    "Conditions",
    "Outlook",
    "how_to_pass",
]

FALSE_ROLLBACK: Final = 0.05
"""A gate that a candidate like stable fails more often is warned of."""

UNDECIDED: Final = 0.5
"""A gate that leaves a candidate like stable undecided more often is warned of."""

FEWEST_AT_STABLE: Final = 30
"""Requests of stable from which on its share of bad ones, or its spread, says something."""

MOST_REQUESTS: Final = 1_000_000
"""The largest `analysis.maxRequests` that can be declared."""

MOST_SECONDS: Final = 604_800
"""The largest `strategy.deadlines.analysisSeconds` that can be declared."""

_TO_SPARE: Final = 1.25
"""By so much more requests than it takes on average, most candidates are decided."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a candidate is tried under, and what is known of stable."""

    analysis: Analysis
    alpha_pass: float
    alpha_fail: float
    """Of one gate: the error budget is split over those that are enforced."""

    horizon: int
    """Requests that count in one stage: as many as are declared, or fewer if time is short."""

    requests_per_minute: int
    """Of the slowest stage."""

    seconds: int
    """Time for the gates of a stage to be decided."""

    expected: int
    """Requests until a candidate is promoted, in all stages and with those of the warm-up."""

    price: float | Unmeasured
    """Price of one busy second of the candidate's server."""

    stable: Totals | None
    """Lifetime counters of stable's pods; None while they are not known."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of one gate. Numbers that are not known are None."""

    text: str
    """What the gate needs."""

    needed_best: int | None = None
    """Requests until it can pass if none is bad; None for a gate that counts none."""

    needed_like_stable: int | None = None
    """Requests until it passes if they are like stable's. More than are declared when more would
    have to be; None when no number would do."""

    p_false_rollback: float | None = None
    """Probability that a candidate exactly like stable fails. Where stable fails in the same time,
    it is held and not rolled back (`modelrollout.gates.common_cause`)."""

    p_undecided: float | None = None
    """Probability that a candidate exactly like stable is undecided at the end."""

    stable: str = ""
    """How stable does by the measure of this gate; empty while that is not known."""

    advice: str = ""
    """What to change if a candidate like stable should pass."""


def how_to_pass(needed: int | None, undecided: float, conditions: Conditions, *, relax: str) -> str:
    """Return what to change for a candidate like stable to pass.

    Parameters
    ----------
    needed
        Requests until it passes, as in `Outlook.needed_like_stable`.
    undecided
        Probability that it does not get so far.
    conditions
        Give the requests and the time that are declared.
    relax
        How the gate's own limit is relaxed.
    """
    if needed is None or undecided <= UNDECIDED:
        return relax
    analysis = conditions.analysis
    requests = _rounded_up(_TO_SPARE * max(needed, conditions.horizon))
    minutes = (requests + analysis.warmup_requests) / conditions.requests_per_minute
    seconds = _rounded_up(60 * minutes)
    if requests > MOST_REQUESTS or seconds > MOST_SECONDS:
        return relax
    knobs: list[str] = []
    if requests > analysis.max_requests:
        knobs.append(f"`analysis.maxRequests` to {requests}")
    if seconds > conditions.seconds:
        knobs.append(f"`strategy.deadlines.analysisSeconds` to {seconds}")
    return f"raise {' and '.join(knobs)}, or {relax}"


def _rounded_up(number: float) -> int:
    """Round to two digits, upwards."""
    unit: int = 10 ** max(0, len(str(int(number))) - 2)
    return math.ceil(number / unit) * unit
