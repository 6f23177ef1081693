"""The load on both arms: whether each bore what it was to bear, and both bore alike."""

from __future__ import annotations

from typing import Final

from modelrollout.gates.evidence import Comparison, ProbeTotals
from modelrollout.gates.look import requests_of

__all__ = ["MOST_MISSED", "MOST_TIMES_BUSIER", "spared_share", "times_busier"]

MOST_MISSED: Final = 0.1
"""Largest part of the probe's load that stable may have been spared when the candidate is blamed
for being slower: requests that queue at the candidate had no queue at stable."""

MOST_TIMES_BUSIER: Final = 1.25
"""Most requests of a pod of stable, in units of the candidate's in the same time, with which the
candidate passes a comparison of latencies: what queues at stable makes the candidate look fast."""


def spared_share(probe: ProbeTotals | None) -> float:
    """Return the part of the probe's load that stable was spared, from 0 to 1."""
    return 0.0 if probe is None else probe.missed_share


def times_busier(compared: Comparison) -> float:
    """Return how many times the candidate's requests one pod of stable had in the same time."""
    at_stable = requests_of(compared.stable) / compared.stable_pods
    return at_stable / max(1, requests_of(compared.candidate))
