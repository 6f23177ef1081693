"""Latency: a share of the requests answered within a time, or not much slower than stable's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from modelrollout.api.gate_types import LatencyGate
from modelrollout.gates.blocks import LOG_SECONDS, latency_key
from modelrollout.gates.changes import ChangeWords, Margins, change_finding
from modelrollout.gates.common_cause import Alibi, excused_share
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.kind import Kind
from modelrollout.gates.load import MOST_MISSED, MOST_TIMES_BUSIER, spared_share, times_busier
from modelrollout.gates.look import Look, requests_of
from modelrollout.gates.sequential import log_information, log_latency
from modelrollout.gates.shares import Share, ShareWords, judge_share
from modelrollout.gates.totals import LogMoments, Totals, is_count
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict, unknown

__all__ = ["KIND", "MOST_FAILED", "MOST_LEFT_OUT"]

MOST_FAILED: Final = 0.02
"""Largest part of the candidate's requests, beyond stable's, that may have failed when it passes a
comparison of those that were served. If they were its slowest, leaving them out makes a candidate
look faster by 0.05 log-deviations (the mean of a normal distribution without its upper 2 %), which
is 1.7 % at a log-deviation of 0.35 and 2.7 % at 0.55."""

MOST_LEFT_OUT: Final = 0.1
"""Largest part of the candidate's requests of classes that stable had none of, when it passes."""

_LARGEST_SUM: Final = 1e30
"""Sums of logarithms beyond it come from no requests; their squares are still finite."""

_WORDS: Final = ChangeWords(
    more="slower", less="faster", as_much="as slow", same="as fast as stable"
)

_Stratum = tuple[int, float, float, int, float, float]


def _judge(gate: LatencyGate, look: Look) -> Finding:
    if gate.max_increase_percent is not None:
        margins = Margins.of(gate.max_increase_percent, gate.pass_margin_percent)
        return _relative(margins, f"<= stable +{gate.max_increase_percent} %", look)
    if gate.percentile is not None and gate.max_milliseconds is not None:
        return _absolute(gate.percentile, gate.max_milliseconds, look)
    return unknown()


# -- absolute --------------------------------------------------------------------------------------
def _absolute(percentile: int, limit: int, look: Look) -> Finding:
    """Judge the requests that were not answered in time.

    "The 95th percentile is at most 1700 ms" says "at most 5 % of requests take longer", which two
    counts show exactly when the limit is an edge of the server's histogram. A request that failed
    by the server's fault was not answered in time either, however soon it failed: a server that
    gives up on what it cannot do quickly is not a fast one.
    """
    gate_limit = f"p{percentile} <= {limit} ms"
    measured = look.measured
    if isinstance(measured, Unmeasured):
        return measured.finding(gate_limit)
    within = measured.within.get(limit)
    if within is None:
        return Finding(
            Verdict.INVALID,
            "ThresholdNotABucketEdge",
            f"{limit} ms is not an edge of the server's latency histogram"
            f"{_nearest(limit, measured.within)}: start the server with "
            "this limit among its edges",
            gate_limit,
        )
    if within > measured.timed:
        return Finding(
            Verdict.INVALID,
            "InconsistentCounters",
            f"{within} requests took at most {limit} ms, but only {measured.timed} were timed",
            gate_limit,
        )
    share = _share(percentile, limit, measured, within)
    effect = look.design_effect(latency_key(limit))
    finding = judge_share(share, look, design_effect=effect)
    alibi = _alibi(percentile, limit, look)
    return excused_share(finding, share, alibi, look, design_effect=effect)


def _share(percentile: int, limit: int, totals: Totals, within: int) -> Share:
    failed = totals.failed > 0
    return Share(
        bad=totals.timed + totals.failed - within,
        requests=totals.timed + totals.failed,
        most=(100 - percentile) / 100,
        words=ShareWords(
            bad=f"slower than {limit} ms{' or failed' if failed else ''}",
            each="is slow or fails" if failed else "is slow",
            limit=f"{100 - percentile} %",
            gate_limit=f"p{percentile} <= {limit} ms",
        ),
    )


def _alibi(percentile: int, limit: int, look: Look) -> Alibi | None:
    """Return the slow requests of both arms in the same time.

    Stable's pods may have been started before the gate was declared, with other edges: then those
    beyond the next edge above the limit are known to be slow, too few rather than too many. The
    candidate is set against them only by that edge, and only if stable was not spared the load.
    """
    if look.together is None:
        return None
    candidate, stable = look.together.candidate, look.together.stable
    edge = min((edge for edge in stable.within if edge >= limit), default=None)
    if edge is None:
        return None
    ours, alike, theirs = (
        _share_beyond(percentile, at, arm)
        for arm, at in ((candidate, limit), (candidate, edge), (stable, edge))
    )
    if ours is None or theirs is None:
        return None
    if spared_share(look.evidence.probe) > MOST_MISSED:
        alike = None
    return Alibi(ours, theirs, alike)


def _share_beyond(percentile: int, edge: int, totals: Totals) -> Share | None:
    within = totals.within.get(edge)
    if within is None or within > totals.timed:
        return None
    return _share(percentile, edge, totals, within)


def _nearest(limit: int, edges: Iterable[int]) -> str:
    """Name the edges beside the limit."""
    ordered = sorted(edges)
    below = [edge for edge in ordered if edge < limit][-1:]
    above = [edge for edge in ordered if edge > limit][:1]
    near = " and ".join(str(edge) for edge in below + above)
    return f" (the nearest are {near})" if near else ""


# -- relative --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Strata:
    """The requests of both arms, class by class."""

    both: tuple[_Stratum, ...]
    """Of the classes that both arms had requests of."""

    compared: int
    """The candidate's requests in them."""

    left_out: int
    """The candidate's requests in other classes."""

    classified: bool
    """Whether the server told requests by class."""


def _relative(margins: Margins, limit: str, look: Look) -> Finding:
    """Judge how much longer than stable the candidate takes for requests of the same class.

    Logarithms of latency are compared, so that an increase by a percentage is a shift; within
    classes, so that the arms may get different mixes of requests. Both arms in the same time, so
    that what slows both is no difference.

    Only served requests have a latency. A candidate that fails what it cannot do quickly looks
    faster than it is: one that failed more than `MOST_FAILED` of its requests beyond what stable
    failed does not pass. That it may not fail many at all, is for the gates on errors or on
    absolute latency, one of which every rollout has.
    """
    compared = look.compared
    if isinstance(compared, Unmeasured):
        return compared.finding(limit)
    if isinstance(look.measured, Unmeasured):
        return look.measured.finding(limit)
    strata = _strata(compared)
    if isinstance(strata, Unmeasured):
        return strata.finding(limit)
    design_effect = look.design_effect(LOG_SECONDS)
    planned = max(1.0, look.max_requests / strata.compared)
    judgement = log_latency(
        strata.both,
        margin_fail=margins.fail,
        margin_pass=margins.passing,
        information_max=log_information(strata.both, design_effect=design_effect) * planned,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
        design_effect=design_effect,
    )
    finding = change_finding(
        judgement,
        margins,
        _WORDS,
        look,
        n_stable=sum(stratum[3] for stratum in strata.both),
        design_effect=design_effect,
    )
    finding = _unless_flattered(finding, strata, compared)
    return _unless_loaded_unlike(finding, compared, look)


def _strata(compared: Comparison) -> _Strata | Unmeasured:
    candidate, stable = compared.candidate.log_moments, compared.stable.log_moments
    for moments in (*candidate.values(), *stable.values()):
        if not _usable(moments):
            return Unmeasured(
                Verdict.INVALID,
                "NotMoments",
                f"{moments.count} requests cannot have logarithms of latency that add up to "
                f"{moments.total} and their squares to {moments.squares}",
            )
    ours = {name for name, moments in candidate.items() if moments.count}
    both = sorted(ours & {name for name, moments in stable.items() if moments.count})
    if not both:
        return Unmeasured(
            Verdict.INVALID,
            "NothingInCommon",
            "the arms have not served requests of the same class yet"
            if ours
            else "the candidate has not served a request yet",
        )
    count = sum(candidate[name].count for name in both)
    return _Strata(
        both=tuple((*_moments(candidate[name]), *_moments(stable[name])) for name in both),
        compared=count,
        left_out=sum(candidate[name].count for name in ours) - count,
        classified="" not in ours,
    )


def _usable(moments: LogMoments) -> bool:
    """Tell whether requests can have these moments: no logarithm of milliseconds is negative."""
    return (
        is_count(moments.count)
        and 0 <= moments.total <= _LARGEST_SUM
        and 0 <= moments.squares <= _LARGEST_SUM
    )


def _moments(moments: LogMoments) -> tuple[int, float, float]:
    return moments.count, moments.mean, moments.squared_deviations


def _unless_flattered(finding: Finding, strata: _Strata, compared: Comparison) -> Finding:
    """Withhold a Pass from a candidate of which what was compared says too little."""
    withheld = None
    notes = []
    if strata.left_out:
        served = strata.compared + strata.left_out
        notes.append(
            f"{strata.left_out} of {served} requests are left out: "
            "stable had none of their classes in the same time"
        )
        if strata.left_out > MOST_LEFT_OUT * served:
            withheld = "ClassesNotCompared"
    failed = _failed_share(compared.candidate)
    if failed - _failed_share(compared.stable) > MOST_FAILED:
        notes.append(f"{100 * failed:.3g} % of its requests failed and have no latency")
        withheld = "TooManyFailed"
    if not strata.classified:
        notes.append(
            "the counters know no classes of requests, so another mix of them looks like "
            "another speed"
        )
    message = ". But ".join([finding.message, "; ".join(notes)]) if notes else finding.message
    if finding.verdict is Verdict.PASS and withheld:
        return replace(
            finding,
            verdict=Verdict.INCONCLUSIVE,
            reason=withheld,
            message=f"{message}: no Pass on that",
            needed=None,
        )
    return replace(finding, message=message)


def _unless_loaded_unlike(finding: Finding, compared: Comparison, look: Look) -> Finding:
    """Withhold a Fail of a candidate that bore more load than stable, a Pass of one with less."""
    spared, busier = spared_share(look.evidence.probe), times_busier(compared)
    if finding.verdict is Verdict.FAIL and spared > MOST_MISSED:
        why = (
            f"stable was spared {100 * spared:.0f} % of the probe's requests, because it had not "
            "answered the one before: no Fail on that; lower `probe.requestsPerMinute`"
        )
    elif finding.verdict is Verdict.PASS and busier > MOST_TIMES_BUSIER:
        each = requests_of(compared.stable) / compared.stable_pods
        why = (
            f"a pod of stable had {each:.0f} requests in the same time, the candidate "
            f"{requests_of(compared.candidate)}, and what waits in stable's queue flatters the "
            "candidate: no Pass on that; raise `probe.requestsPerMinute` to what a pod of stable "
            "serves"
        )
    else:
        return finding
    return replace(
        finding,
        verdict=Verdict.INCONCLUSIVE,
        reason="UnequalLoad",
        message=f"{finding.message}. But {why}",
        needed=None,
    )


def _failed_share(totals: Totals) -> float:
    return totals.failed / max(1, requests_of(totals))


KIND = Kind(LatencyGate, _judge)
