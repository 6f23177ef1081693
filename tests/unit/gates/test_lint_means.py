"""What is told before a trial of gates on means, of facts, and of too much to be told."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.conditions import MESSAGE_LIMIT
from modelrollout.gates.lint import lint
from modelrollout.gates.sequential import log_information, log_latency, mean_limit
from modelrollout.gates.totals import LogMoments, Totals
from modelrollout.gates.verdict import Verdict
from tests.unit.gates.judging import counters
from tests.unit.gates.linting import (
    COST,
    DEARER,
    ERRORS,
    MEMORY,
    P95,
    PEAK,
    REPEATABLE,
    SLOWER,
    declared,
    linted,
    only,
    stable_that,
)


# -- means -----------------------------------------------------------------------------------------
def test_a_comparison_takes_the_requests_that_stables_spread_asks_for() -> None:
    stable = stable_that(400, classes={"small": 0.75, "large": 0.25})
    gate = only(linted(SLOWER, stable=stable))
    strata = [
        (item.count, item.mean, item.squared_deviations) * 2 for item in stable.log_moments.values()
    ]
    plan = log_information(strata) * 300 / 400
    assert gate.needed_like_stable is not None
    for times, verdict in ((1.1, Verdict.PASS), (0.9, Verdict.INCONCLUSIVE)):
        part = times * gate.needed_like_stable / 400
        found = log_latency(
            [(round(part * n), mean, part * ss) * 2 for n, mean, ss, *_ in strata],
            margin_fail=1.10,
            margin_pass=1.25,
            information_max=plan,
            alpha=0.05,
        )
        assert found.verdict is verdict, found.message
    assert gate.p_undecided == pytest.approx(0, abs=0.01)
    assert gate.warning == ""


def test_a_comparison_that_wide_spread_leaves_undecided_is_warned_of() -> None:
    wide = {"small": LogMoments(400, 400 * 7.0, 400 * (49.0 + 1.8**2))}
    gate = only(linted(SLOWER, stable=replace(stable_that(400), log_moments=wide)))
    assert gate.p_undecided is not None
    assert gate.p_undecided > 0.5
    assert gate.needed_like_stable is not None
    assert gate.needed_like_stable > 300
    assert "(times of a class spread by 180 %)" in gate.warning
    assert re.search(
        r"raise `analysis.maxRequests` to \d+, or raise `latency.passMarginPercent`$", gate.warning
    )


def test_a_comparison_without_moments_says_what_it_needs() -> None:
    stable = replace(stable_that(400), log_moments={})
    gate = only(linted(SLOWER, stable=stable))
    assert gate.text == "needs at least 30 requests, and as many at stable"
    assert (gate.needed_best, gate.needed_like_stable, gate.p_undecided) == (30, None, None)


def test_a_limit_on_cost_below_stables_is_warned_of() -> None:
    # A second of a GPU at 3.60 an hour costs 0.001.
    dear = only(linted(COST, stable=stable_that(500, seconds=2.4)))
    assert dear.p_false_rollback == pytest.approx(1)
    assert dear.needed_like_stable is None
    assert dear.warning == (
        "gate 'cost': a candidate like today's stable (0.0024 per image, limit 0.002) would fail "
        "in 100 % of trials; raise `cost.maxPerImage`"
    )
    fair = only(linted(COST, stable=stable_that(500, seconds=1.5)))
    assert (fair.needed_like_stable, fair.warning) == (30, "")


def test_a_cost_gate_with_two_limits_has_to_keep_both() -> None:
    both = {"name": "cost", "cost": {"maxPerImage": "0.002", "maxIncreasePercent": 10}}
    stable = stable_that(500, seconds=1.0, spread=1.2)
    gate, one, other = (
        only(linted(item, stable=stable, analysis={"maxRequests": 100}))
        for item in (both, COST, DEARER)
    )
    assert one.needed_like_stable is not None
    assert other.needed_like_stable is not None
    assert gate.needed_like_stable == max(one.needed_like_stable, other.needed_like_stable)
    assert "costs of requests spread by 120 %" in gate.warning
    assert "raise `cost.maxIncreasePercent`" in gate.warning


def test_nothing_is_told_of_cost_without_a_price() -> None:
    spec = declared(COST)
    found = lint(spec, gpu_hour_price=Decimal("NaN"), stable=stable_that(500))
    assert only(found).needed_like_stable is None


@pytest.mark.parametrize("cost", [0.0019, 0.00195, 0.002, 0.0021])
def test_the_figures_of_a_mean_are_those_of_its_test(cost: float) -> None:
    """The gate itself, on simulated requests, looked at after every fifth."""
    courses, most, spread = 400, 200, 0.2
    stable = counters(500, seconds=1000 * cost, spread=1000 * cost * spread)
    expected = only(linted(COST, stable=stable, analysis={"maxRequests": most}))
    random = np.random.default_rng(20260301)
    ends = dict.fromkeys(Verdict, 0)
    for course in random.lognormal(math.log(cost), spread, (courses, most)) / math.exp(
        spread**2 / 2
    ):
        for n in range(30, most + 1, 5):
            found = mean_limit(
                n, course[:n].mean(), course[:n].std(ddof=1), limit=0.002, n_max=most, alpha=0.05
            ).verdict
            if found is not Verdict.INCONCLUSIVE or n == most:
                ends[found] += 1
                break
    assert expected.p_false_rollback == pytest.approx(ends[Verdict.FAIL] / courses, abs=0.07)
    assert expected.p_undecided == pytest.approx(ends[Verdict.INCONCLUSIVE] / courses, abs=0.1)


# -- facts -----------------------------------------------------------------------------------------
def test_a_stable_that_runs_out_of_memory_makes_a_hard_limit_a_lottery() -> None:
    found = linted(P95, MEMORY, stable=stable_that(1000, slow=10, ooms=2))
    memory = found.gates[1]
    assert memory.p_false_rollback == pytest.approx(1 - math.exp(-140 * 2 / 1000))
    assert memory.warning == (
        "gate 'oom': a candidate like today's stable (out of memory 2 times in 1000 requests, "
        "limit 0 in about 140) would fail in 24 % of trials; raise `outOfMemory.maxCount`"
    )


def test_stages_add_to_the_chance_of_a_rare_event() -> None:
    stages = {"stages": [{"name": "a"}, {"name": "b"}]}
    stable = stable_that(1000, slow=10, ooms=2)
    once, twice = (
        linted(P95, MEMORY, stable=stable, **changes).gates[1].p_false_rollback
        for changes in ({}, {"strategy": stages})
    )
    assert once is not None
    assert twice == pytest.approx(1 - (1 - once) ** 2)


@pytest.mark.parametrize(("peak", "fate"), [(0.92, 0.0), (0.921, 1.0), (None, None)])
def test_a_peak_beyond_the_limit_is_a_fact(peak: float | None, fate: float | None) -> None:
    gate = only(linted(PEAK, stable=stable_that(1000, peak=peak)))
    assert gate.p_false_rollback == fate
    assert ("raise `gpuMemory.maxPercent`" in gate.warning) is (fate == 1)


def test_repeats_are_no_requests() -> None:
    gate = only(linted(REPEATABLE, stable=stable_that(1000)))
    assert (gate.needed_best, gate.seconds, gate.p_undecided) == (None, None, None)
    assert gate.text == "needs the pictures of 8 prompts, made before the load"


# -- the message -----------------------------------------------------------------------------------
def test_a_message_with_too_many_warnings_says_how_many_are_left_out() -> None:
    gates = [
        {
            "name": f"latency-{percentile}",
            "latency": {"percentile": percentile, "maxMilliseconds": 1700},
        }
        for percentile in range(80, 96)
    ]
    found = linted(*gates, stable=stable_that(1000, slow=500))
    assert len(found.warnings) == 16
    message = found.message()
    assert len(message) <= MESSAGE_LIMIT
    told = message.count("would fail")
    assert 1 < told < 16
    assert message.endswith(f"; warnings left out: {16 - told}")


@given(
    st.builds(
        Totals,
        pod=st.just("stable-1"),
        time=st.just(stable_that(1).time),
        succeeded=st.integers(0, 2**53),
        failed=st.integers(0, 2**53),
        images=st.integers(0, 2**53),
        measured=st.integers(0, 2**53),
        gpu_seconds=st.floats(0, 1e60),
        gpu_seconds_squares=st.floats(0, 1e60),
        busy_seconds=st.floats(0, 1e60),
        timed=st.integers(0, 2**53),
        within=st.dictionaries(st.sampled_from([500, 1700, 3000]), st.integers(0, 2**53)),
        out_of_memory=st.integers(0, 2**53),
        log_moments=st.dictionaries(
            st.sampled_from(["small", "large"]),
            st.builds(LogMoments, st.integers(0, 2**53), st.floats(0, 1e60), st.floats(0, 1e60)),
        ),
        peak_memory_share=st.none() | st.floats(0, 1),
    )
)
def test_whatever_stable_has_counted_the_lint_is_made_of_numbers(stable: Totals) -> None:
    both = {"name": "both", "cost": {"maxPerImage": "0", "maxIncreasePercent": 1}}
    never = {"name": "none", "errors": {"maxPercent": "0"}}
    gates = (P95, ERRORS, SLOWER, COST, both, never, MEMORY, PEAK, REPEATABLE)
    found = linted(*gates, stable=stable)
    assert len(found.message()) <= MESSAGE_LIMIT
    for gate in found.gates:
        fails, undecided = gate.p_false_rollback or 0.0, gate.p_undecided or 0.0
        assert 0 <= fails <= 1
        assert 0 <= undecided <= 1
        assert fails + undecided <= 1 + 1e-9
        assert gate.needed_like_stable is None or gate.needed_like_stable <= 1_000_000
