"""Cost: GPU time per delivered image at the pool's price, against a limit and against stable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from modelrollout.api.gate_types import CostGate
from modelrollout.gates.changes import ChangeWords, Margins, change_finding
from modelrollout.gates.kind import Kind, Need
from modelrollout.gates.look import Look
from modelrollout.gates.sequential import Judgement, mean_limit, mean_ratio
from modelrollout.gates.shares import confidence
from modelrollout.gates.totals import Totals, is_count
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict, all_of, unknown

__all__ = ["KIND", "CostSample", "price_per_second", "sample_of"]

_SECONDS_PER_HOUR: Final = 3600
_ROUNDING: Final = 1e-9
"""Relative error that sums of floating-point numbers may have picked up."""

_LARGEST_PRICE: Final = Decimal(10**15)
"""Beyond it products of prices need no longer be numbers."""

_WORDS: Final = ChangeWords(
    more="dearer", less="cheaper", as_much="as dear", same="as dear as stable"
)


def _needs(gate: CostGate) -> frozenset[Need]:
    needs = {Need.REQUESTS}
    return frozenset(needs if gate.max_increase_percent is None else needs | {Need.COMPARISON})


def _judge(gate: CostGate, look: Look) -> Finding:
    """Judge the cost of busy GPU time per delivered image.

    Busy time, not time held: an idle candidate is not an expensive one. Failed attempts are busy
    time too, shared over the images that were delivered.

    The interval comes from the spread of busy seconds over requests; images per request, and the
    part of busy time that failed attempts took, are taken as observed.
    """
    both = look.split((gate.max_per_image is not None) + (gate.max_increase_percent is not None))
    findings = []
    if gate.max_per_image is not None:
        findings.append(_absolute(gate.max_per_image, both))
    if gate.max_increase_percent is not None:
        findings.append(_relative(gate.max_increase_percent, both))
    return all_of(findings) if findings else unknown()


@dataclass(frozen=True, slots=True)
class CostSample:
    """Busy GPU time per image, in seconds, and the spread of single requests in the same unit."""

    n: int
    seconds: float
    deviation: float


def sample_of(measured: Totals) -> CostSample | Unmeasured:
    """Return the busy time per image that counters tell of, or why they tell of none."""
    n, total, squares = measured.measured, measured.gpu_seconds, measured.gpu_seconds_squares
    if measured.images == 0 or n == 0:
        return Unmeasured(
            Verdict.INVALID, "NoImages", "no image is delivered yet: there is no cost per image"
        )
    spread = squares / n - (total / n) ** 2
    if spread < -_ROUNDING * squares or (total == 0 and measured.busy_seconds > 0):
        return Unmeasured(
            Verdict.INVALID,
            "InconsistentCounters",
            f"{n} requests with {total:.6g} busy seconds cannot have {squares:.6g} square seconds "
            f"and {measured.busy_seconds:.6g} busy seconds in all",
        )
    seconds = measured.busy_seconds / measured.images
    deviation = math.sqrt(max(0.0, spread) * n / max(1, n - 1))
    relative = deviation * n / total if total else 0.0
    return CostSample(n=int(n), seconds=seconds, deviation=relative * seconds)


def price_per_second(gpu_hour: Decimal, gpus: int) -> float | Unmeasured:
    """Return the price of one busy second of a server, or why there is none."""
    if not (gpu_hour.is_finite() and 0 <= gpu_hour <= _LARGEST_PRICE and is_count(gpus) and gpus):
        return Unmeasured(
            Verdict.INVALID, "NoPrice", f"{gpus} GPUs at {gpu_hour} per hour give no cost"
        )
    return float(gpu_hour) * gpus / _SECONDS_PER_HOUR


# -- absolute --------------------------------------------------------------------------------------
def _absolute(declared: str, look: Look) -> Finding:
    limit = f"<= {declared} per image"
    if isinstance(look.measured, Unmeasured):
        return look.measured.finding(limit)
    sample, price = (
        sample_of(look.measured),
        price_per_second(look.evidence.gpu_hour_price, look.evidence.gpu_count),
    )
    if isinstance(sample, Unmeasured):
        return sample.finding(limit)
    if isinstance(price, Unmeasured):
        return price.finding(limit)
    judgement = mean_limit(
        sample.n,
        sample.seconds * price,
        sample.deviation * price,
        limit=float(declared),
        n_max=look.max_requests,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
    )
    return Finding(
        judgement.verdict,
        judgement.reason,
        _message(judgement, declared, look),
        limit,
        n=judgement.n,
        estimate=_amount(judgement.estimate, digits=4),
        interval=None
        if judgement.low is None
        else f"{_amount(judgement.low, digits=4)} to {_amount(judgement.high, digits=4)}",
        needed=judgement.needed,
    )


def _message(judgement: Judgement, declared: str, look: Look) -> str:
    if judgement.n is None:
        return judgement.message
    low, high = _amount(judgement.low), _amount(judgement.high)
    shown = f"{_amount(judgement.estimate)} per image over {judgement.n} requests, limit {declared}"
    match judgement.verdict:
        case Verdict.FAIL:
            return f"{shown}: at least {low} with {confidence(look.alpha_fail)}"
        case Verdict.PASS:
            return f"{shown}: at most {high} with {confidence(look.alpha_pass)}"
        case _ if judgement.needed is None:
            return f"{shown}: between {low} and {high}, not decided yet"
        case _:
            return (
                f"{shown}: between {low} and {high}; "
                f"passes at about {judgement.n + judgement.needed} requests like these"
            )


def _amount(value: float | None, *, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}g}"


# -- relative --------------------------------------------------------------------------------------
def _relative(increase: int, look: Look) -> Finding:
    limit = f"<= stable +{increase} %"
    compared, evidence = look.compared, look.evidence
    if isinstance(compared, Unmeasured):
        return compared.finding(limit)
    if isinstance(look.measured, Unmeasured):
        return look.measured.finding(limit)
    ours, theirs = sample_of(compared.candidate), sample_of(compared.stable)
    if isinstance(ours, Unmeasured):
        return ours.finding(limit)
    if isinstance(theirs, Unmeasured):
        return replace(theirs, message=f"at stable: {theirs.message}").finding(limit)
    times = _dearer(evidence.gpu_hour_price, evidence.gpu_count, look)
    if isinstance(times, Unmeasured):
        return times.finding(limit)
    margins = Margins.of(increase)
    judgement = mean_ratio(
        ours.n,
        ours.seconds * times,
        ours.deviation * times,
        theirs.n,
        theirs.seconds,
        theirs.deviation,
        margin_fail=margins.fail,
        margin_pass=margins.passing,
        n_max=look.max_requests,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
    )
    return change_finding(judgement, margins, _WORDS, look)


def _dearer(gpu_hour: Decimal, gpus: int, look: Look) -> float | Unmeasured:
    """Return the price of a busy second of the candidate in units of one of stable.

    Two revisions may run in different pools, or on another number of GPUs. Where time is for free
    at both, time is what is compared.
    """
    stable_hour, stable_gpus = look.evidence.stable_gpu_hour_price, look.evidence.stable_gpu_count
    ours = price_per_second(gpu_hour, gpus)
    theirs = price_per_second(
        gpu_hour if stable_hour is None else stable_hour,
        gpus if stable_gpus is None else stable_gpus,
    )
    if isinstance(ours, Unmeasured):
        return ours
    if isinstance(theirs, Unmeasured):
        return theirs
    if ours == theirs:
        return 1.0
    if theirs == 0:
        return Unmeasured(
            Verdict.INVALID, "NoPrice", "stable's GPUs are for free: nothing is a percentage dearer"
        )
    return ours / theirs


KIND = Kind(CostGate, _needs, _judge)
