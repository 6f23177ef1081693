"""Cost: GPU time per delivered image, at the pool's price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from modelrollout.api.gate_types import CostGate
from modelrollout.gates.evidence import Evidence
from modelrollout.gates.look import Look, Unmeasured
from modelrollout.gates.sequential import mean_half_width
from modelrollout.gates.totals import Totals
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["FEWEST_REQUESTS", "judge"]

FEWEST_REQUESTS: Final = 20
"""Below it the mean is not close enough to normal for its interval to be trusted."""

_SECONDS_PER_HOUR: Final = 3600
_ROUNDING: Final = 1e-9
"""Relative error that sums of floating-point numbers may have picked up."""


def judge(gate: CostGate, look: Look) -> Finding:
    """Judge the cost of busy GPU time per delivered image.

    Busy time, not time held: an idle candidate is not an expensive one. Failed attempts are busy
    time too, shared over the images that were delivered.

    The interval comes from the spread of busy seconds over requests; images per request, and the
    part of busy time that failed attempts took, are taken as observed.
    """
    limit = f"<= {gate.max_per_image} per image"
    measured = look.measured
    if isinstance(measured, Unmeasured):
        return measured.finding(limit)
    sample = _sample(measured, look.evidence)
    if isinstance(sample, Unmeasured):
        return sample.finding(limit)
    return _compare(sample, float(gate.max_per_image), limit, look)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Cost per image: its estimate, and the spread of single requests relative to it."""

    n: int
    cost: float
    relative_deviation: float

    def margin(self, alpha: float, n: int) -> float:
        """Return the half-width of the interval after `n` requests of the same spread."""
        return self.cost * mean_half_width(n, self.relative_deviation, alpha=alpha)


def _sample(measured: Totals, evidence: Evidence) -> _Sample | Unmeasured:
    n, total, squares = measured.measured, measured.gpu_seconds, measured.gpu_seconds_squares
    if measured.images == 0 or n == 0:
        return Unmeasured(
            Verdict.INVALID, "NoImages", "no image is delivered yet: there is no cost per image"
        )
    price = evidence.gpu_hour_price
    if not (price.is_finite() and price >= 0 and evidence.gpu_count >= 1):
        return Unmeasured(
            Verdict.INVALID,
            "NoPrice",
            f"{evidence.gpu_count} GPUs at {price} per hour give no cost",
        )
    spread = squares / n - (total / n) ** 2
    if spread < -_ROUNDING * squares or (total == 0 and measured.busy_seconds > 0):
        return Unmeasured(
            Verdict.INVALID,
            "InconsistentCounters",
            f"{n} requests with {total:.6g} busy seconds cannot have {squares:.6g} square seconds "
            f"and {measured.busy_seconds:.6g} busy seconds in all",
        )
    deviation = math.sqrt(max(0.0, spread) * n / max(1, n - 1))
    hourly = float(price * Decimal(evidence.gpu_count))
    return _Sample(
        n=n,
        cost=measured.busy_seconds * hourly / _SECONDS_PER_HOUR / measured.images,
        relative_deviation=deviation * n / total if total else 0.0,
    )


def _compare(sample: _Sample, maximum: float, limit: str, look: Look) -> Finding:
    low = max(0.0, sample.cost - sample.margin(look.alpha_fail, sample.n))
    high = sample.cost + sample.margin(look.alpha_pass, sample.n)
    shown = f"{sample.cost:.3g} per image over {sample.n} requests, limit {maximum:g}"
    needed: int | None = None
    if sample.n >= FEWEST_REQUESTS and low > maximum:
        verdict, reason = Verdict.FAIL, "LimitExceeded"
        message = f"{shown}: at least {low:.3g} with {100 * (1 - look.alpha_fail):.4g} % confidence"
    elif sample.n >= FEWEST_REQUESTS and high <= maximum:
        verdict, reason, needed = Verdict.PASS, "WithinLimit", 0
        message = f"{shown}: at most {high:.3g} with {100 * (1 - look.alpha_pass):.4g} % confidence"
    else:
        verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
        needed = _needed(sample, maximum, look.alpha_pass)
        message = f"{shown}: between {low:.3g} and {high:.3g}" + (
            "" if needed is None else f"; passes at about {sample.n + needed} requests like these"
        )
    return Finding(
        verdict,
        reason,
        message,
        limit,
        n=sample.n,
        estimate=f"{sample.cost:.4g}",
        interval=f"{low:.4g} to {high:.4g}",
        needed=needed,
    )


def _needed(sample: _Sample, maximum: float, alpha: float) -> int | None:
    """Return how many more requests of the same mean and spread would pass."""
    gap = maximum - sample.cost
    if (gap <= 0 and sample.relative_deviation * sample.cost > 0) or gap < 0:
        return None
    low, high = sample.n, max(FEWEST_REQUESTS, sample.n + 1)
    while sample.margin(alpha, high) > gap:
        low, high = high, 2 * high
        if high > 10 * _SECONDS_PER_HOUR * FEWEST_REQUESTS:
            return None
    while high - low > 1 and low >= FEWEST_REQUESTS:
        middle = (low + high) // 2
        if sample.margin(alpha, middle) > gap:
            low = middle
        else:
            high = middle
    return high - sample.n
