"""What is simulated many times at once is what the engine says at each look."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.boundaries import decide_shares, score_line, share_boundaries
from benchmarks.bursts import ALPHA, LIMIT, design_effects, draw, verdicts
from benchmarks.courses import Course, Margins, courses, judge
from benchmarks.slowdowns import SHARE
from benchmarks.traffic import STUDIO, generate
from modelrollout.api.gate_types import Gate
from modelrollout.api.spec import Analysis
from modelrollout.gates.blocks import ERRORS, LOG_SECONDS, Blocks
from modelrollout.gates.judge import evaluate
from modelrollout.gates.sequential import Verdict, proportion
from tests.unit.gates.judging import counters, evidence


@pytest.mark.parametrize("limit", [0.05, 0.2])
def test_boundaries_of_a_share_are_those_of_the_engine(limit: float) -> None:
    passing, failing = share_boundaries(limit, 100, 0.05, 0.05)
    for n in range(1, 101):
        for k in range(n + 1):
            verdict = proportion(k, n, limit, alpha_pass=0.05, alpha_fail=0.05).verdict
            assert (verdict == Verdict.PASS) == (k <= passing[n])
            assert (verdict == Verdict.FAIL) == (k >= failing[n])


def test_courses_end_at_the_first_verdict_of_the_engine() -> None:
    # Given courses with many slow requests and with few
    random = np.random.default_rng(3)
    slow = random.random((40, 200)) < np.where(np.arange(40) % 2, 0.15, 0.02)[:, None]
    # When they are decided at once
    passed, failed = decide_shares(slow, *share_boundaries(0.05, 200, 0.05, 0.05))
    # Then each ends as it does when the engine is asked after each request
    for course, ended in zip(slow, zip(passed, failed, strict=True), strict=True):
        assert _first_verdict(course) == tuple(ended)


def _first_verdict(course: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    for n in range(1, len(course) + 1):
        found = proportion(int(course[:n].sum()), n, 0.05, alpha_pass=0.05, alpha_fail=0.05)
        if found.verdict == Verdict.PASS:
            return n, 0
        if found.verdict == Verdict.FAIL:
            return 0, n
    return 0, 0


def test_verdicts_with_design_effects_are_those_of_the_engine() -> None:
    random = np.random.default_rng(4)
    n = random.integers(1, 600, 500)
    bad = random.binomial(n, random.choice([0.01, 0.05, 0.2], 500))
    effect = random.choice([1.0, 1.3, 2.7], 500)
    passes, fails = verdicts(bad, n, effect)
    for at in range(500):
        found = proportion(
            int(bad[at]),
            int(n[at]),
            LIMIT,
            alpha_pass=ALPHA,
            alpha_fail=ALPHA,
            design_effect=float(effect[at]),
        ).verdict
        assert (found == Verdict.PASS, found == Verdict.FAIL) == (passes[at], fails[at])


@pytest.mark.parametrize("length", [1, 6])
def test_design_effects_are_those_of_the_blocks(length: int) -> None:
    # Given courses of slow requests, looked at after each request
    slow = draw(0.10, length, (5, 150), np.random.default_rng(5))
    effects = design_effects(slow)
    for course, expected in zip(slow, effects, strict=True):
        blocks = Blocks()
        for n in range(1, 151):
            bad = int(course[:n].sum())
            # When the operator keeps blocks of them (here of failed requests)
            measured = counters(n - bad, failed=bad)
            blocks = blocks.add(measured, None, ())
            found = blocks.design_effects(measured, None, ())[ERRORS]
            # Then it says what the simulation says
            assert found == pytest.approx(expected[n - 1], rel=1e-9)


def test_slow_requests_come_as_often_and_as_long_as_asked_for() -> None:
    slow = draw(0.05, 4, (200, 2000), np.random.default_rng(6))
    starts = slow[:, 1:] & ~slow[:, :-1]
    assert slow.mean() == pytest.approx(0.05, abs=0.005)
    assert slow[:, 1:].sum() / starts.sum() == pytest.approx(4, rel=0.1)


def _some_courses(slowdown: float, runs: int) -> list[Course]:
    traffic = generate(
        STUDIO, runs=runs, requests=800, share=SHARE, random=np.random.default_rng(7)
    )
    return list(courses(traffic, math.log(slowdown)))


GATE = Gate.model_validate({"name": "vs-stable", "latency": {"maxIncreasePercent": 10}})


@pytest.mark.parametrize("slowdown", [1.0, 1.1, 1.3])
def test_a_simulated_trial_ends_as_the_gate_says(slowdown: float) -> None:
    # Given trials of a candidate
    for course in _some_courses(slowdown, 4):
        (end,) = judge(course, (120,), Margins())
        # When the operator's gate is asked in each look
        found = _asked(course, 120)
        # Then it decides the same, after the same number of requests
        assert (end.verdict, end.n) == found


def _asked(course: Course, n_max: int) -> tuple[Verdict, int]:
    analysis = Analysis(min_requests=30, max_requests=n_max)
    nothing = replace(counters(0), pod=course.comparison(0).candidate.pod, within={})
    blocks = Blocks()
    for look, n in enumerate(course.looks[:, 0].tolist()):
        comparison = course.comparison(look)
        blocks = blocks.add(comparison.candidate, comparison, ())
        effects = blocks.design_effects(comparison.candidate, comparison, ())
        given = evidence(
            comparison.candidate,
            baseline=nothing,
            comparison=comparison,
            design_effects={LOG_SECONDS: effects[LOG_SECONDS]},
        )
        verdict = evaluate([GATE], analysis, given).results[0].verdict
        if n >= n_max or verdict in {Verdict.PASS, Verdict.FAIL}:
            return verdict, n
    raise AssertionError("the course is too short")


def test_the_line_is_the_published_one() -> None:
    line = score_line(100, 500, 0.05)
    assert np.isinf(line[:29]).all()
    assert line[29:] == pytest.approx(np.full(71, 1.959964 * math.sqrt(2 * 500)), rel=1e-5)
