"""Stability: repeats of the same prompt with the same seed must look the same."""

from __future__ import annotations

from typing import Final

from modelrollout.api.gate_types import StabilityGate
from modelrollout.gates.look import Look
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Finding, Verdict

__all__ = ["FEWEST_PROMPTS", "judge"]

FEWEST_PROMPTS: Final = 8
"""Prompts whose repeats must have been compared before a candidate passes."""


def judge(gate: StabilityGate, look: Look) -> Finding:
    """Judge the largest deviation between repeats over all prompts.

    A deviation beyond the limit is a fact about this model, not a chance event: it fails at once.
    """
    limit = f"<= {gate.max}"
    probe = look.evidence.probe
    if probe is None:
        return Finding(
            Verdict.INVALID, "NoProbe", "Prometheus has no results of the probe yet", limit
        )
    prompts, deviation = probe.repeat_prompts, probe.repeat_deviation
    known = deviation is not None and 0 <= deviation <= 1
    if not is_count(prompts) or (deviation is not None and not known):
        return Finding(
            Verdict.INVALID,
            "NotAMeasurement",
            f"a deviation of {deviation} over {prompts} prompts is no measurement",
            limit,
        )
    if deviation is None:
        return Finding(
            Verdict.INVALID,
            "NothingMeasured",
            "no prompt has been repeated yet",
            limit,
            needed=FEWEST_PROMPTS,
        )
    shown = f"repeats differ by at most {deviation:.3g} over {prompts} prompts, limit {gate.max}"
    missing = max(0, FEWEST_PROMPTS - int(prompts))
    needed: int | None = missing
    if deviation > float(gate.max):
        verdict, reason, needed = Verdict.FAIL, "LimitExceeded", None
        message = (
            f"repeats differ by {deviation:.3g}, limit {gate.max} ({prompts} prompts measured)"
        )
    elif missing:
        verdict, reason = Verdict.INCONCLUSIVE, "MorePromptsNeeded"
        message = f"{shown}: passes at {FEWEST_PROMPTS} prompts"
    else:
        verdict, reason, message = Verdict.PASS, "WithinLimit", shown
    return Finding(
        verdict,
        reason,
        message,
        limit,
        n=int(prompts),
        estimate=f"{deviation:.3g}",
        needed=needed,
    )
