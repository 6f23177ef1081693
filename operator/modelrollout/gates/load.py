"""The load on both arms: whether each bore what it was to bear, and both bore alike."""

from __future__ import annotations

from typing import Final

from modelrollout.gates.evidence import Comparison, ProbeTotals
from modelrollout.gates.look import Look, requests_of
from modelrollout.gates.scalars import shown
from modelrollout.gates.totals import Totals, is_count
from modelrollout.gates.verdict import Unmeasured, Verdict

__all__ = [
    "MOST_MISSED",
    "MOST_TIMES_BUSIER",
    "MOST_UNSERVED",
    "spared_share",
    "times_busier",
    "unborne",
]

MOST_MISSED: Final = 0.1
"""Largest part of the probe's load that stable may have been spared when the candidate is blamed
for being slower: requests that queue at the candidate had no queue at stable."""

MOST_TIMES_BUSIER: Final = 1.25
"""Most requests of a pod of stable, in units of the candidate's in the same time, with which the
candidate passes a comparison of latencies: what queues at stable makes the candidate look fast."""


MOST_UNSERVED: Final = 0.02
"""Largest part of the load that a candidate may leave unserved when it passes. What it was not
asked, or refused, is in no count of slow or failed requests; as much as this, were it all bad, is
small beside the usual limits of 5 %."""


def spared_share(probe: ProbeTotals | None) -> float:
    """Return the part of the probe's load that stable was spared, from 0 to 1."""
    if probe is None or not (is_count(probe.stable_missed) and is_count(probe.stable_served)):
        return 0.0
    return probe.missed_share


def times_busier(compared: Comparison) -> float:
    """Return how many times the candidate's requests one pod of stable had in the same time."""
    at_stable = requests_of(compared.stable) / compared.stable_pods
    return at_stable / max(1, requests_of(compared.candidate))


def unborne(look: Look) -> Unmeasured | None:
    """Return why a candidate that kept all limits did not bear the load, or None when it did.

    The probe's turns and the server's refusals are counted by two programs, each against its own
    number of requests: users may be among those of the server.
    """
    probe, measured = look.evidence.probe, look.measured
    refused = served = missed = answered = 0
    if isinstance(measured, Totals):
        refused, served = measured.refused, requests_of(measured)
    if probe is not None:
        missed, answered = probe.candidate_missed, probe.candidate_served
        counts = (missed, answered, probe.stable_missed, probe.stable_served)
        if not all(is_count(count) for count in counts):
            listed = ", ".join(shown(count) for count in counts)
            return Unmeasured(Verdict.INVALID, "NotACount", f"the probe's counts {listed} are none")
    left = []
    if missed > MOST_UNSERVED * (missed + answered):
        left.append(
            f"was offered {missed + answered} requests by the probe and left {missed} unserved, "
            "because too many were open"
        )
    if refused > MOST_UNSERVED * (refused + served):
        left.append(f"refused {refused} of {refused + served} requests as busy")
    if not left:
        return None
    return Unmeasured(
        Verdict.INCONCLUSIVE,
        "LoadNotBorne",
        f"all gates pass, but the candidate {' and '.join(left)}, above "
        f"{100 * MOST_UNSERVED:g} %: lower `probe.requestsPerMinute`, or let it serve more, with "
        "larger batches or more GPUs",
    )
