"""The observed share of traffic: whether the candidate gets what was declared for it."""

from __future__ import annotations

from typing import Final

from modelrollout.gates import special
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.verdict import Unmeasured, Verdict

__all__ = ["SURPRISE", "probability", "traffic_skew"]

SURPRISE: Final = 0.001
"""A share that is less probable than this is not put down to chance. The test is made at every
look, so chance alone does that now and then in a long trial; it costs a delay, never a verdict:
nothing is judged until the shares agree again."""


def traffic_skew(declared: float | None, comparison: Comparison) -> Unmeasured | None:
    """Return why the two arms do not see the traffic that they should, or None when they do.

    Clients that stick to one arm, or weights that did not take effect, make the requests of the
    arms differ in more than the model: no count of them is then comparable, or representative.

    Parameters
    ----------
    declared
        Share of the requests that should reach the candidate; None when users send it none.
    comparison
        Requests of both arms; their counters are known to be counts.
    """
    if declared is None:
        return None
    if not 0 <= declared <= 1:
        return Unmeasured(
            Verdict.INVALID, "NotAShare", f"a declared share of traffic of {declared} is none"
        )
    candidate = comparison.candidate.succeeded + comparison.candidate.failed
    total = candidate + comparison.stable.succeeded + comparison.stable.failed
    if total == 0 or probability(candidate, total, declared) >= SURPRISE:
        return None
    return Unmeasured(
        Verdict.INVALID,
        "TrafficSkew",
        f"{candidate} of {total} requests ({100 * candidate / total:.3g} %) reached the candidate, "
        f"where {100 * declared:.3g} % are declared: the arms do not see the same traffic. "
        "Do clients stick to one of them, or did the weights not take effect?",
    )


def probability(k: int, n: int, share: float) -> float:
    """Return the probability of a count as unlikely as `k` of `n`, or more, on either side.

    The exact binomial test, two-sided by doubling the smaller tail.

    Parameters
    ----------
    k
        Requests that reached the candidate.
    n
        All requests, at least one.
    share
        Probability that a request reaches the candidate, from 0 to 1.
    """
    at_most = float(special.betainc(n - k, k + 1, 1 - share)) if k < n else 1.0
    at_least = float(special.betainc(k, n - k + 1, share)) if k else 1.0
    return min(1.0, 2 * min(at_most, at_least))
