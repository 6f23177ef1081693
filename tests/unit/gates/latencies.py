"""Log seconds of two arms, and the test of their ratio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import norm

from modelrollout.gates.sequential import (
    Judgement,
    Verdict,
    log_information,
    log_latency,
)

ALPHA = 0.05
Z = float(norm.ppf(1 - ALPHA / 2))
Z_PASS = float(norm.ppf(1 - 0.5 * ALPHA / 2))
"""The line for Pass spends half of the error."""

Moments = tuple[float, float, float]
Strata = list[tuple[float, float, float, float, float, float]]

WORSE = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
"""Verdicts in the order in which more bad requests may change them."""


def moments(logs: Any) -> Moments:
    values = np.asarray(logs, dtype=float)
    mean = float(values.mean()) if values.size else 0.0
    return float(values.size), mean, float(((values - mean) ** 2).sum())


def latency(strata: Strata, **changes: float) -> Judgement:
    """Judge against +10 % for Fail and +25 % for Pass, with 300 requests planned."""
    n = sum(item[0] for item in strata if item[3])
    given: dict[str, float] = {
        "margin_fail": 1.10,
        "margin_pass": 1.25,
        "information_max": log_information(strata) * 300 / max(1, n),
        "alpha": ALPHA,
    }
    return log_latency(strata, **{**given, **changes})


def traffic(ratio: float, n: int, *, seed: int = 7, spread: float = 0.3) -> Strata:
    """Requests of two classes; the candidate gets every fifth."""
    rng = np.random.default_rng(seed)
    strata: Strata = []
    for centre, part in ((3.0, 0.6), (3.7, 0.4)):
        size = round(part * n)
        candidate = rng.normal(centre + math.log(ratio), spread, size)
        stable = rng.normal(centre, spread, 4 * size)
        strata.append((*moments(candidate), *moments(stable)))
    return strata
