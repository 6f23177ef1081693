"""The lint of all gates of a spec, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from modelrollout.api.conditions import MESSAGE_LIMIT
from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.spec import Spec
from modelrollout.gates.changes import Margins
from modelrollout.gates.cost import price_per_second
from modelrollout.gates.lint.facts import gpu_memory_outlook, out_of_memory_outlook
from modelrollout.gates.lint.means import comparison_outlook, cost_outlook
from modelrollout.gates.lint.outlook import (
    FALSE_ROLLBACK,
    FEWEST_AT_STABLE,
    UNDECIDED,
    Conditions,
    Outlook,
)
from modelrollout.gates.lint.shares import errors_outlook, slow_outlook
from modelrollout.gates.look import requests_of
from modelrollout.gates.stability import FEWEST_PROMPTS
from modelrollout.gates.totals import Incomparable, Totals

__all__ = ["GateLint", "Lint", "lint", "usable"]


@dataclass(frozen=True, slots=True)
class GateLint:
    """What is to be expected of one gate. Numbers that are not known are None."""

    name: str
    enforced: bool
    needed_best: int | None
    """Requests of a stage until it can pass if none is bad."""

    needed_like_stable: int | None
    """Requests of a stage until it passes if they are like stable's. More than are declared when
    more would have to be; None also when no number would do."""

    seconds: float | None
    """Time for the requests that are needed, like stable's if that is known, and the warm-up."""

    p_false_rollback: float | None
    """Probability that a candidate exactly like stable fails. Where stable fails in the same time,
    it is held and not rolled back."""

    p_undecided: float | None
    """Probability that a candidate exactly like stable is undecided at the end."""

    text: str
    """What the gate needs."""

    warning: str
    """Why a candidate like stable would hardly pass, and what to change; mostly empty."""


@dataclass(frozen=True, slots=True)
class Lint:
    """What is to be expected of a trial."""

    gates: tuple[GateLint, ...]
    headline: str
    """The requests and the time that the enforced gates need."""

    needed: int
    """Requests of a stage."""

    seconds: float
    """Time of all stages, without that of the repeats before the load."""

    warnings: tuple[str, ...]
    """What is wrong, of the trial as a whole and of enforced gates; mostly nothing."""

    def message(self, *, most: int = MESSAGE_LIMIT) -> str:
        """Return the headline and as many warnings as fit into `most` characters."""
        text, last = self.headline, len(self.warnings) - 1
        for index, warning in enumerate(self.warnings):
            rest = "" if index == last else f"; warnings left out: {last - index}"
            if len(f"{text}; {warning}{rest}") > most:
                return f"{text}; warnings left out: {last - index + 1}"
            text = f"{text}; {warning}"
        return text


def lint(spec: Spec, *, gpu_hour_price: Decimal, stable: Totals | None = None) -> Lint:
    """Return what the gates of a spec ask for, and how a candidate like stable would fare.

    A pure function, which never raises and refuses nothing
    (`modelrollout.gates.feasibility.infeasible_gate` does).

    Parameters
    ----------
    spec
        What is declared. Requests come at the rate of the probe.
    gpu_hour_price
        Price of one GPU of the candidate's pool for one hour.
    stable
        Lifetime counters of stable's pods, taken together; None when they are not known. Those
        that are not `usable` are as good as none.
    """
    conditions = _conditions(spec, gpu_hour_price, stable)
    found = [_outlook(gate, conditions) for gate in spec.gates]
    needed, like_stable = _requests_needed(spec, found)
    stages = spec.strategy.stages
    warmup = spec.analysis.warmup_requests
    # Memory that runs out counts from the first request on, so its chance grows with their number.
    expected = replace(conditions, expected=len(stages) * (warmup + needed))
    gates = tuple(
        _gate_lint(gate, item if gate.out_of_memory is None else _outlook(gate, expected), expected)
        for gate, item in zip(spec.gates, found, strict=True)
    )
    seconds = sum(60 * (warmup + needed) / stage.probe.requests_per_minute for stage in stages)
    warnings = [gate.warning for gate in gates if gate.warning and gate.enforced]
    return Lint(
        gates=gates,
        headline=_headline(spec, needed, seconds, like_stable=like_stable),
        needed=needed,
        seconds=seconds,
        warnings=(*_too_little_time(spec, gates, conditions), *warnings),
    )


def usable(stable: Totals | None) -> Totals | None:
    """Return stable's counters if there are enough of them to say something of it."""
    if stable is None:
        return None
    try:
        stable.check()
    except Incomparable:
        return None
    return stable if requests_of(stable) >= FEWEST_AT_STABLE else None


def _conditions(spec: Spec, gpu_hour_price: Decimal, stable: Totals | None) -> Conditions:
    analysis = spec.analysis
    alpha = 1 - analysis.confidence_percent / 100
    enforced = sum(gate.mode is GateMode.ENFORCE for gate in spec.gates)
    in_time = int(spec.strategy.deadlines.analysis_seconds * _slowest(spec) / 60)
    return Conditions(
        analysis=analysis,
        alpha_pass=alpha,
        alpha_fail=alpha / max(1, enforced * len(spec.strategy.stages)),
        horizon=min(analysis.max_requests, max(0, in_time - analysis.warmup_requests)),
        requests_per_minute=_slowest(spec),
        seconds=spec.strategy.deadlines.analysis_seconds,
        expected=0,
        price=price_per_second(gpu_hour_price, spec.serving.gpu.count),
        stable=usable(stable),
    )


def _slowest(spec: Spec) -> int:
    return min(stage.probe.requests_per_minute for stage in spec.strategy.stages)


def _outlook(gate: Gate, conditions: Conditions) -> Outlook:
    latency = gate.latency
    if latency is not None and latency.max_increase_percent is not None:
        margins = Margins.of(latency.max_increase_percent, latency.pass_margin_percent)
        return comparison_outlook(margins, conditions)
    if latency is not None and latency.percentile and latency.max_milliseconds:
        return slow_outlook(latency.percentile, latency.max_milliseconds, conditions)
    if gate.errors is not None:
        return errors_outlook(gate.errors, conditions)
    if gate.cost is not None:
        return cost_outlook(gate.cost, conditions)
    if gate.out_of_memory is not None:
        return out_of_memory_outlook(gate.out_of_memory, conditions)
    if gate.gpu_memory is not None:
        return gpu_memory_outlook(gate.gpu_memory, conditions)
    if gate.stability is not None:
        return Outlook(f"needs the pictures of {FEWEST_PROMPTS} prompts, made before the load")
    return Outlook("is of a kind that this operator does not know")


def _requests_needed(spec: Spec, found: Sequence[Outlook]) -> tuple[int, bool]:
    """Return the requests that all enforced gates need, and whether they are those like stable's.

    They are those with nothing bad where stable is not known, or would not pass.
    """
    counting = [
        item
        for gate, item in zip(spec.gates, found, strict=True)
        if gate.mode is GateMode.ENFORCE and item.needed_best is not None
    ]
    like = [item.needed_like_stable for item in counting if item.needed_like_stable is not None]
    if len(like) == len(counting) and max(like, default=0) <= spec.analysis.max_requests:
        return max([spec.analysis.min_requests, *like]), True
    best = [item.needed_best for item in counting if item.needed_best is not None]
    return max([spec.analysis.min_requests, *best]), False


def _gate_lint(gate: Gate, item: Outlook, conditions: Conditions) -> GateLint:
    requests = item.needed_best if item.needed_like_stable is None else item.needed_like_stable
    warmup = conditions.analysis.warmup_requests
    return GateLint(
        name=gate.name,
        enforced=gate.mode is GateMode.ENFORCE,
        needed_best=item.needed_best,
        needed_like_stable=item.needed_like_stable,
        seconds=None
        if requests is None
        else 60 * (warmup + requests) / conditions.requests_per_minute,
        p_false_rollback=item.p_false_rollback,
        p_undecided=item.p_undecided,
        text=item.text,
        warning=_warning(gate, item, conditions),
    )


def _warning(gate: Gate, item: Outlook, conditions: Conditions) -> str:
    fails, undecided = item.p_false_rollback or 0.0, item.p_undecided or 0.0
    hopeless = item.needed_best is not None and item.needed_best > conditions.horizon
    if fails <= FALSE_ROLLBACK and (undecided <= UNDECIDED or hopeless):
        return ""
    fates = [
        f"{verb} in {_percent(probability)}"
        for verb, probability in (("fail", fails), ("stay undecided", undecided))
        if probability >= 0.005  # noqa: PLR2004 - what would be rounded to 0 %
    ]
    return (
        f"gate '{gate.name}': a candidate like today's stable ({item.stable}) would "
        f"{' and '.join(fates)} of trials; {item.advice}"
    )


def _too_little_time(
    spec: Spec, gates: Sequence[GateLint], conditions: Conditions
) -> tuple[str, ...]:
    """Say so when not even a candidate without a bad request could pass in time."""
    best = [gate.needed_best or 0 for gate in gates if gate.enforced]
    if max([spec.analysis.min_requests, *best]) <= conditions.horizon:
        return ()
    deadline = spec.strategy.deadlines.analysis_seconds
    if conditions.horizon == spec.analysis.max_requests:
        return (f"only {conditions.horizon} requests are made (`analysis.maxRequests`): raise it",)
    why = (
        f"only {conditions.horizon} requests fit into `strategy.deadlines.analysisSeconds` "
        f"({deadline} s): raise it, or `probe.requestsPerMinute`"
    )
    return (why,)


def _headline(spec: Spec, needed: int, seconds: float, *, like_stable: bool) -> str:
    rates = {stage.probe.requests_per_minute for stage in spec.strategy.stages}
    stages, warmup = len(spec.strategy.stages), spec.analysis.warmup_requests
    subject = (
        f"a candidate like today's stable needs about {needed}"
        if like_stable
        else f"the gates need at least {needed}"
    )
    return (
        f"accepted; {subject} requests"
        f"{f' after {warmup} of warm-up' if warmup else ''}"
        f"{f' in each of {stages} stages' if stages > 1 else ''}, {_duration(seconds)}"
        f"{f' at {rates.pop()} requests/min' if len(rates) == 1 else ''}"
    )


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %"


def _duration(seconds: float) -> str:
    """Say a time in its two largest units: '1 min 12 s'."""
    whole = round(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size = next((size for size, _ in units if whole >= size), 1)
    parts: list[str] = []
    for unit, name in units:
        count = whole // unit
        whole %= unit
        if unit <= size and len(parts) < 2 and (count or not parts):  # noqa: PLR2004
            parts.append(f"{count} {name}")
    return " ".join(parts)
