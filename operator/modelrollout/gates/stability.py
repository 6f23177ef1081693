"""Stability: pictures that should be equal must look the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelrollout.api.gate_types import StabilityGate, StabilityKind
from modelrollout.gates.evidence import Deviations
from modelrollout.gates.facts import told_apart
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look
from modelrollout.gates.totals import is_count
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict

__all__ = ["FEWEST_PROMPTS", "KIND"]

FEWEST_PROMPTS: Final = 8
"""Prompts whose pictures must have been compared before a candidate passes."""


@dataclass(frozen=True, slots=True)
class _Words:
    """How a kind of stability is spoken of."""

    subject: str
    missing: str


_WORDS: Final = {
    StabilityKind.REPEAT: _Words("repeats", "no prompt has been repeated yet"),
    StabilityKind.BATCH: _Words(
        "pictures made alone and in a batch", "no prompt has been made alone and in a batch yet"
    ),
    StabilityKind.SEED: _Words(
        "pictures of neighbouring seeds", "no prompt has been made with neighbouring seeds yet"
    ),
    StabilityKind.DRIFT: _Words(
        "pictures made early and late", "no prompt has been made again later yet"
    ),
}


def _judge(gate: StabilityGate, look: Look) -> Finding:
    """Judge the largest deviation over all prompts.

    A deviation beyond the limit is a fact about this model, not a chance event: it fails at once.
    """
    limit = f"<= {gate.max}"
    words = _WORDS[gate.kind]
    measured = _measured(gate.kind, look)
    if isinstance(measured, Unmeasured):
        return measured.finding(limit)
    if measured.largest is None:
        return Finding(
            Verdict.INVALID, "NothingMeasured", words.missing, limit, needed=FEWEST_PROMPTS
        )
    prompts, largest = int(measured.prompts), measured.largest
    shown = told_apart(largest, float(gate.max))
    over = f"over {prompts} prompt{'' if prompts == 1 else 's'}"
    missing = max(0, FEWEST_PROMPTS - prompts)
    needed: int | None = missing
    if largest > float(gate.max):
        verdict, reason, needed = Verdict.FAIL, "LimitExceeded", None
        message = f"{words.subject} differ by {shown}, limit {gate.max}: exceeded, {over}"
    elif missing:
        verdict, reason = Verdict.INCONCLUSIVE, "MorePromptsNeeded"
        message = (
            f"{words.subject} differ by at most {shown} {over}, limit {gate.max}: "
            f"passes at {FEWEST_PROMPTS} prompts"
        )
    else:
        verdict, reason = Verdict.PASS, "WithinLimit"
        message = f"{words.subject} differ by at most {shown} {over}, limit {gate.max}"
    return Finding(verdict, reason, message, limit, n=prompts, estimate=shown, needed=needed)


def _measured(kind: StabilityKind, look: Look) -> Deviations | Unmeasured:
    if kind is StabilityKind.REPEAT:
        probe = look.evidence.probe
        if probe is None:
            return Unmeasured(
                Verdict.INVALID, "NoProbe", "Prometheus has no results of the probe yet"
            )
        found = Deviations(probe.repeat_prompts, probe.repeat_deviation)
    else:
        found = look.evidence.deviations.get(kind, Deviations(0, None))
    prompts, largest = found.prompts, found.largest
    if not is_count(prompts) or (largest is not None and not 0 <= largest <= 1):
        return Unmeasured(
            Verdict.INVALID,
            "NotAMeasurement",
            f"a deviation of {largest} over {prompts} prompts is no measurement",
        )
    return found


KIND = Kind(StabilityGate, _judge, prompts=True)
