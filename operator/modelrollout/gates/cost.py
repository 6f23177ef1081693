"""Cost: GPU time per delivered image at the pool's price, against a limit and against stable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from modelrollout.api.gate_types import CostGate
from modelrollout.gates.blocks import COST
from modelrollout.gates.changes import ChangeWords, Margins, change_finding
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.facts import told_apart
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look
from modelrollout.gates.sequential import FEWEST_REQUESTS, Judgement, mean_limit, mean_ratio
from modelrollout.gates.shares import NOTABLE_EFFECT, confidence, in_bursts
from modelrollout.gates.totals import Totals, is_count
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict, all_of, unknown

__all__ = ["KIND", "MOST_APART", "CostSample", "price_per_second", "sample_of"]

_SECONDS_PER_HOUR: Final = 3600
_ROUNDING: Final = 1e-9
"""Relative error that sums of floating-point numbers may have picked up."""

_LARGEST_PRICE: Final = Decimal(10**15)
"""Beyond it products of prices need no longer be numbers."""

_WORDS: Final = ChangeWords(
    more="dearer",
    less="cheaper",
    as_much="as dear",
    same="as dear as stable",
    because="the cost of an image varies",
)

MOST_APART: Final = 0.1
"""Largest total variation distance between the mixes of requests of arms whose cost is compared.
Where a tenth of the requests is of a class that costs twice as much, cost differs by a tenth."""


def _judge(gate: CostGate, look: Look) -> Finding:
    """Judge the cost of busy GPU time per delivered image.

    Busy time, not time held: an idle candidate is not an expensive one. Failed attempts are busy
    time too, shared over the images that were delivered.

    The interval comes from the spread of busy seconds over requests. What the number of images per
    request and failed attempts add to it shows between blocks of requests (`gates.blocks`).
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
    if measured.busy_seconds == 0:
        return Unmeasured(
            Verdict.INVALID,
            "NoBusyTime",
            f"{measured.images} images were delivered and no GPU was busy: the counter of busy "
            "seconds is silent",
        )
    spread = squares / n - (total / n) ** 2
    if spread < -_ROUNDING * squares or total == 0:
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
    effect = look.design_effect(COST)
    judgement = mean_limit(
        sample.n,
        sample.seconds * price,
        sample.deviation * price,
        limit=float(declared),
        n_max=look.max_requests,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
        design_effect=effect,
    )
    return Finding(
        judgement.verdict,
        judgement.reason,
        _free(judgement) if price == 0 else _message(judgement, declared, effect, look),
        limit,
        n=judgement.n,
        estimate=_amount(judgement.estimate, digits=4),
        interval=None
        if judgement.low is None or sample.n < FEWEST_REQUESTS or price == 0
        else f"{_amount(judgement.low, digits=4)} to {_amount(judgement.high, digits=4)}",
        needed=judgement.needed,
    )


def _message(judgement: Judgement, declared: str, effect: float, look: Look) -> str:
    if judgement.n is None or judgement.low is None or judgement.high is None:
        return judgement.message
    low, high = (told_apart(bound, float(declared)) for bound in (judgement.low, judgement.high))
    fewer = ""
    if effect > NOTABLE_EFFECT:
        fewer = f" ({in_bursts(judgement.n, effect, because=_WORDS.because)})"
    shown = (
        f"{_amount(judgement.estimate)} per image over {judgement.n} requests{fewer}, "
        f"limit {declared}"
    )
    match judgement.verdict:
        case Verdict.FAIL:
            return f"{shown}: exceeded, at least {low} with {confidence(look.alpha_fail)}"
        case Verdict.PASS:
            return f"{shown}: at most {high} with {confidence(look.alpha_pass)}"
        case _ if judgement.n < FEWEST_REQUESTS:
            return f"{shown}: a mean takes {FEWEST_REQUESTS} requests"
        case _ if judgement.needed is None:
            return f"{shown}: between {low} and {high}, not decided yet"
        case _:
            return (
                f"{shown}: between {low} and {high}; "
                f"passes at about {judgement.n + judgement.needed} requests like these"
            )


def _free(judgement: Judgement) -> str:
    """Say that nothing is paid; no measurement is behind such a Pass."""
    return f"the pool's GPUs are for free (`gpuHourPrice` is 0), over {judgement.n} requests"


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
    effect = look.design_effect(COST)
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
        design_effect=effect,
    )
    finding = change_finding(
        judgement, margins, _WORDS, look, n_stable=theirs.n, design_effect=effect
    )
    return _unless_mixed(finding, compared)


def _unless_mixed(finding: Finding, compared: Comparison) -> Finding:
    """Withhold both verdicts where the arms were asked for different things.

    Cost is per image, of whatever size and steps: unlike latencies it is not compared class by
    class, because busy seconds are not counted so.
    """
    candidate, stable = (
        {name: moments.count for name, moments in arm.log_moments.items()}
        for arm in (compared.candidate, compared.stable)
    )
    if not all(is_count(count) for count in (*candidate.values(), *stable.values())):
        return Finding(
            Verdict.INVALID, "NotACount", "requests by class are not counts", finding.limit
        )
    apart = _variation(candidate, stable)
    if apart <= MOST_APART or finding.verdict not in {Verdict.PASS, Verdict.FAIL}:
        return finding
    return replace(
        finding,
        verdict=Verdict.INCONCLUSIVE,
        reason="DifferentMix",
        message=f"{finding.message}. But {100 * apart:.0f} % of the candidate's requests would "
        "have to be of other classes to be the mix that stable had, and classes cost differently: "
        "no verdict on that; let the probe ask for what users ask for (`probe.suite`), or set "
        "`cost.maxPerImage` alone",
        needed=None,
    )


def _variation(candidate: Mapping[str, int], stable: Mapping[str, int]) -> float:
    """Return the total variation distance of the shares of classes, from 0 to 1.

    Half the sum of absolute differences: the part of one arm's requests that would have to be of
    another class for the shares to be equal. Arms that were asked for nothing do not differ.
    """
    ours, theirs = sum(candidate.values()), sum(stable.values())
    if not (ours and theirs):
        return 1.0 if ours or theirs else 0.0
    return (
        sum(
            abs(candidate.get(name, 0) / ours - stable.get(name, 0) / theirs)
            for name in {*candidate, *stable}
        )
        / 2
    )


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


KIND = Kind(CostGate, _judge)
