"""Text accuracy: absolute, and paired with stable."""

from __future__ import annotations

import math

import pytest

from modelrollout.api.gate_types import TextAccuracyGate
from modelrollout.gates.evidence import PairedScores
from modelrollout.gates.verdict import Finding, Verdict
from tests.unit.gates.judging import counters, evidence, judged

ABSOLUTE = TextAccuracyGate(min_percent=80)
RELATIVE = TextAccuracyGate(max_drop_percent=10)
BOTH = TextAccuracyGate(min_percent=80, max_drop_percent=10)


def read(gate: TextAccuracyGate, ours: float, theirs: float, prompts: int = 60) -> Finding:
    """What is found when all prompts have two seeds of the same score."""
    scores = PairedScores(
        candidate={f"p{index}": [ours, ours] for index in range(prompts)},
        stable={f"p{index}": [theirs, theirs] for index in range(prompts)},
    )
    return judged(gate, evidence(counters(60), text_accuracy=scores))


def test_a_reader_of_words_passes_and_one_that_reads_none_fails() -> None:
    assert read(ABSOLUTE, 0.97, 0.0).verdict is Verdict.PASS
    result = read(ABSOLUTE, 0.3, 0.3)
    assert result.verdict is Verdict.FAIL
    assert result.message.startswith("30 % of the words are read over 60 prompts (")
    assert result.message.endswith("limit 80 %: missed, with 95 % confidence")
    assert (result.limit, result.n, result.estimate) == (">= 80 %", 60, "30 %")


def test_beside_stable_only_the_drop_counts() -> None:
    # Given a stable that reads half of the words
    assert read(RELATIVE, 0.5, 0.5, prompts=200).verdict is Verdict.PASS
    assert read(ABSOLUTE, 0.5, 0.5, prompts=200).verdict is Verdict.FAIL
    dropped = read(RELATIVE, 0.6, 0.95, prompts=200)
    assert dropped.verdict is Verdict.FAIL
    assert dropped.message.startswith("-35 points against stable over 200 prompts (")
    assert dropped.limit == ">= stable -10 points"


def test_both_limits_must_be_kept() -> None:
    assert read(BOTH, 0.97, 0.97, prompts=200).verdict is Verdict.PASS
    assert read(BOTH, 0.5, 0.5, prompts=200).verdict is Verdict.FAIL
    assert read(BOTH, 0.85, 1.0, prompts=2000).verdict is Verdict.FAIL
    assert read(BOTH, 0.97, 0.97, prompts=3).verdict is Verdict.INCONCLUSIVE


def test_pairs_are_made_of_what_both_arms_have() -> None:
    # Given a candidate ahead of stable by a seed, and by a prompt
    scores = PairedScores(
        candidate={"a": [0.9, 0.1], "b": [0.9], "c": [0.0]}, stable={"a": [0.9], "b": [0.9]}
    )
    result = judged(RELATIVE, evidence(counters(60), text_accuracy=scores))
    assert (result.n, result.estimate) == (2, "+0")


@pytest.mark.parametrize("gate", [ABSOLUTE, RELATIVE, BOTH])
@pytest.mark.parametrize("score", [math.nan, math.inf, -0.01, 1.01, 10**400])
def test_a_score_that_is_none_is_invalid(gate: TextAccuracyGate, score: float) -> None:
    assert read(gate, score, 0.5).verdict is Verdict.INVALID
    assert read(gate, 0.5, score).verdict is Verdict.INVALID


@pytest.mark.parametrize("gate", [ABSOLUTE, RELATIVE, BOTH])
def test_without_pictures_read_there_is_nothing_to_judge(gate: TextAccuracyGate) -> None:
    assert judged(gate, evidence(counters(60))).reason == "NothingMeasured"
    empty = PairedScores(candidate={})
    assert judged(gate, evidence(counters(60), text_accuracy=empty)).verdict is Verdict.INVALID


def test_a_form_from_the_future_is_not_judged() -> None:
    assert judged(TextAccuracyGate(), evidence(counters(60))).reason == "UnknownGateKind"
