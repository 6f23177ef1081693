"""Gates on means, judged by one stopping line: figures of a Brownian motion."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from modelrollout.api.gate_types import CostGate
from modelrollout.gates import special
from modelrollout.gates.changes import Margins
from modelrollout.gates.cost import sample_of
from modelrollout.gates.lint.outlook import (
    FEWEST_AT_STABLE,
    MOST_REQUESTS,
    Conditions,
    Outlook,
    how_to_pass,
)
from modelrollout.gates.operating import line_crossing
from modelrollout.gates.sequential import FEWEST_REQUESTS, latencies, log_information, means
from modelrollout.gates.sequential.stopping_line import LEAST_VARIANCE
from modelrollout.gates.verdict import Unmeasured

__all__ = ["comparison_outlook", "cost_outlook"]

_WIDEST_GAP: Final = 50.0
"""Logarithms of ratios beyond it are those of amounts that have nothing to do with each other."""

_WIDEST_SPREAD: Final = 1e100
"""Of single requests in units of their mean; its square is still a number."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What a candidate like stable has to cross, and by how much it misses it."""

    information: float
    """Of one request of the candidate, on the log of what is estimated."""

    information_to_pass: float
    """The same for what Pass is judged by."""

    spent_on_pass: float
    """Part of the allowed error that Pass spends."""

    to_fail: float
    """How far below the margin of Fail the log of what is estimated is."""

    to_pass: float
    """How far below the margin of Pass."""

    stable: str
    relax: str


def comparison_outlook(margins: Margins, conditions: Conditions) -> Outlook:
    """Return what is to be expected of a limit on latency relative to stable's.

    Stable is taken to get as many requests as the candidate, of the classes that it had so far.
    """
    nothing = Outlook(
        f"needs at least {FEWEST_REQUESTS} requests, and as many at stable", FEWEST_REQUESTS
    )
    if conditions.stable is None:
        return nothing
    moments = conditions.stable.log_moments.values()
    requests = sum(item.count for item in moments)
    if requests < FEWEST_AT_STABLE:
        return nothing
    arm = [(item.count, item.mean, item.squared_deviations) for item in moments]
    alike = [(*ours, *ours) for ours in arm]
    information = log_information(alike) / requests
    if not information > 0:
        return nothing
    line = _Line(
        information,
        log_information(alike, by_requests=True) / requests,
        latencies.SPENT_ON_PASS,
        math.log(margins.fail),
        math.log(margins.passing),
        stable=f"times of a class spread by {_spread(1 / (2 * information))}",
        relax="raise `latency.passMarginPercent`",
    )
    return _on_line(line, nothing, conditions)


def cost_outlook(gate: CostGate, conditions: Conditions) -> Outlook:
    """Return what is to be expected of limits on cost."""
    nothing = Outlook(f"needs at least {FEWEST_REQUESTS} requests", FEWEST_REQUESTS)
    stable = None if conditions.stable is None else sample_of(conditions.stable)
    if stable is None or isinstance(stable, Unmeasured):
        return nothing
    if stable.n < FEWEST_AT_STABLE or stable.seconds <= 0:
        return nothing
    variance = max(LEAST_VARIANCE, min(_WIDEST_SPREAD, stable.deviation / stable.seconds) ** 2)
    lines: list[_Line] = []
    if gate.max_per_image is not None and not isinstance(conditions.price, Unmeasured):
        cost, limit = stable.seconds * conditions.price, float(gate.max_per_image)
        described = f"{cost:.3g} per image, limit {gate.max_per_image}"
        gap = _gap(limit, cost)
        relax = "raise `cost.maxPerImage`"
        lines.append(_cost_line(1 / variance, gap, gap, stable=described, relax=relax))
    if gate.max_increase_percent is not None:
        margins = Margins.of(gate.max_increase_percent)
        lines.append(
            _cost_line(
                1 / (2 * variance),
                math.log(margins.fail),
                math.log(margins.passing),
                stable=f"costs of requests spread by {_spread(variance)}",
                relax="raise `cost.maxIncreasePercent`",
            )
        )
    split = replace(conditions, alpha_fail=conditions.alpha_fail / max(1, len(lines)))
    found = [_on_line(line, nothing, split) for line in lines]
    return _all_of(found) if found else nothing


def _cost_line(
    information: float, to_fail: float, to_pass: float, *, stable: str, relax: str
) -> _Line:
    return _Line(
        information, information, means.SPENT_ON_PASS, to_fail, to_pass, stable=stable, relax=relax
    )


def _on_line(line: _Line, nothing: Outlook, conditions: Conditions) -> Outlook:
    plan = max(conditions.analysis.max_requests, FEWEST_REQUESTS)
    to_pass, to_fail = (
        -float(special.ndtri(alpha / 2))
        for alpha in (conditions.alpha_pass * line.spent_on_pass, conditions.alpha_fail)
    )
    passes = fails = 0.0
    if conditions.horizon >= FEWEST_REQUESTS:
        # A motion up to a part of the plan is one up to its end, on another scale.
        higher = math.sqrt(plan / conditions.horizon)
        known = math.sqrt(line.information_to_pass * conditions.horizon)
        passes = line_crossing(line.to_pass * known, to_pass * higher)
        known = math.sqrt(line.information * conditions.horizon)
        fails = line_crossing(-line.to_fail * known, to_fail * higher)
    undecided = max(0.0, 1 - passes - fails)
    like = _requests_to_pass(line, to_pass, plan)
    return Outlook(
        nothing.text if like is None else f"{nothing.text}, about {like} like stable's",
        nothing.needed_best,
        like,
        fails,
        undecided,
        line.stable,
        how_to_pass(like, undecided, conditions, relax=line.relax),
    )


def _requests_to_pass(line: _Line, quantile: float, plan: int) -> int | None:
    """Return the requests at which the expected score crosses the line.

    If that is beyond the plan, it is the shortest plan at the end of which it would.
    """
    least_information = (quantile / line.to_pass) ** 2 if line.to_pass > 0 else math.inf
    if least_information > MOST_REQUESTS * line.information_to_pass:
        return None
    shortest = least_information / line.information_to_pass
    needed = shortest if shortest > plan else math.sqrt(shortest * plan)
    return max(math.ceil(needed), FEWEST_REQUESTS)


def _all_of(found: list[Outlook]) -> Outlook:
    """Return the outlook of a gate with several limits, in the words of the worst."""
    worst = max(found, key=lambda item: ((item.p_false_rollback or 0), (item.p_undecided or 0)))
    needed = [item.needed_like_stable for item in found if item.needed_like_stable is not None]
    fails = min(1.0, sum(item.p_false_rollback or 0.0 for item in found))
    undecided = max(item.p_undecided or 0.0 for item in found)
    return replace(
        worst,
        needed_like_stable=max(needed) if len(needed) == len(found) else None,
        p_false_rollback=fails,
        p_undecided=min(undecided, 1 - fails),
    )


def _gap(limit: float, amount: float) -> float:
    if amount <= 0 or limit <= 0:
        return _WIDEST_GAP if amount <= 0 else -_WIDEST_GAP
    return max(-_WIDEST_GAP, min(_WIDEST_GAP, math.log(limit) - math.log(amount)))


def _spread(variance: float) -> str:
    """Say the standard deviation of a logarithm in percent."""
    return f"{100 * math.sqrt(variance):.3g} %"
