"""Text accuracy: how much of the words in prompts can be read, alone and beside stable."""

from __future__ import annotations

import operator
from itertools import chain

from modelrollout.api.gate_types import TextAccuracyGate
from modelrollout.gates.evidence import PairedScores
from modelrollout.gates.kind import Kind
from modelrollout.gates.look import Look
from modelrollout.gates.scalars import shown
from modelrollout.gates.sequential import Judgement, bounded_mean, paired_bounded
from modelrollout.gates.shares import confidence
from modelrollout.gates.verdict import Finding, Unmeasured, Verdict, all_of, unknown

__all__ = ["KIND"]


def _judge(gate: TextAccuracyGate, look: Look) -> Finding:
    """Judge scores by prompt: several seeds of one prompt say less than several prompts.

    Beside stable, scores are paired by prompt and seed: that some prompts are harder than others
    is then no noise.
    """
    both = look.split((gate.min_percent is not None) + (gate.max_drop_percent is not None))
    findings = []
    if gate.min_percent is not None:
        findings.append(_absolute(gate.min_percent, both))
    if gate.max_drop_percent is not None:
        findings.append(_relative(gate.max_drop_percent, both))
    return all_of(findings) if findings else unknown()


def _scores(look: Look) -> PairedScores | Unmeasured:
    scores = look.evidence.text_accuracy
    if scores is None:
        return Unmeasured(Verdict.INVALID, "NothingMeasured", "no picture has been read yet")
    for arm in (scores.candidate, scores.stable):
        for value in set(chain.from_iterable(arm.values())):  # shares of few words are few
            if not 0 <= value <= 1:
                return Unmeasured(
                    Verdict.INVALID, "NotAMeasurement", f"an accuracy of {shown(value)} is none"
                )
    return scores


def _absolute(percent: int, look: Look) -> Finding:
    limit = f">= {percent} %"
    scores = _scores(look)
    if isinstance(scores, Unmeasured):
        return scores.finding(limit)
    judgement = bounded_mean(
        list(scores.candidate.values()),
        minimum=percent / 100,
        alpha=look.alpha_pass,
        alpha_fail=look.alpha_fail,
    )
    return _finding(judgement, "of the words are read", limit, f"limit {percent} %", look)


def _relative(points: int, look: Look) -> Finding:
    limit = f">= stable -{points} points"
    scores = _scores(look)
    if isinstance(scores, Unmeasured):
        return scores.finding(limit)
    pairs = _differences(scores)
    if not pairs:
        return Finding(
            Verdict.INVALID,
            "NothingInCommon",
            "no prompt has been read in pictures of both arms yet",
            limit,
        )
    judgement = paired_bounded(
        pairs, margin=points / 100, alpha=look.alpha_pass, alpha_fail=look.alpha_fail
    )
    return _finding(
        judgement, "points against stable", limit, f"limit -{points} points", look, signed=True
    )


def _differences(scores: PairedScores) -> list[list[float]]:
    """Return candidate less stable, seed by seed, of the prompts that both have.

    Scores come in the order of seeds: where one arm is ahead, the seeds that both have are paired.
    """
    stable = scores.stable
    found = [
        list(map(operator.sub, values, stable[prompt]))
        for prompt, values in scores.candidate.items()
        if prompt in stable
    ]
    return [differences for differences in found if differences]


def _finding(
    judgement: Judgement,
    words: str,
    limit: str,
    declared: str,
    look: Look,
    *,
    signed: bool = False,
) -> Finding:
    def said(value: float | None, unit: str = " %") -> str | None:
        if value is None:
            return None
        return f"{100 * value:{'+' if signed else ''}.3g}{'' if signed else unit}"

    interval = None
    if judgement.low is not None and judgement.high is not None:
        interval = f"{said(judgement.low)} to {said(judgement.high)}"
    message = judgement.message
    if judgement.n is not None and judgement.estimate is not None:
        message = f"{said(judgement.estimate)} {words} over {judgement.n} prompts" + (
            "" if interval is None else f" ({interval})"
        )
        message += f", {declared}: {_outcome(judgement, look)}"
    return Finding(
        judgement.verdict,
        judgement.reason,
        message,
        limit,
        n=judgement.n,
        estimate=said(judgement.estimate),
        interval=interval,
        needed=judgement.needed,
    )


def _outcome(judgement: Judgement, look: Look) -> str:
    match judgement.verdict:
        case Verdict.PASS:
            return f"kept, with {confidence(look.alpha_pass)}"
        case Verdict.FAIL:
            return f"missed, with {confidence(look.alpha_fail)}"
        case _ if judgement.needed is not None and judgement.n is not None:
            return f"passes at {judgement.n + judgement.needed} prompts if the next are perfect"
        case _:
            return "not decided yet"


KIND = Kind(TextAccuracyGate, _judge, prompts=True)
