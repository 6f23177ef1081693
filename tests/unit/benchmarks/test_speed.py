"""What the benchmark of speed times."""

from __future__ import annotations

import numpy as np

from benchmarks.speed import ANALYSIS, GATES, evidence_of, gates_of
from modelrollout.gates.judge import KINDS, evaluate
from modelrollout.gates.verdict import Verdict


def test_every_kind_of_gate_is_timed_on_evidence_that_it_can_judge() -> None:
    timed = gates_of(tuple(GATES))
    assert {type(gate.criterion) for gate in timed} == set(KINDS)
    results = evaluate(timed, ANALYSIS, evidence_of(150, np.random.default_rng(9))).results
    assert Verdict.INVALID not in {result.verdict for result in results}
