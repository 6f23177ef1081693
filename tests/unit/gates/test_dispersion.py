"""How much less requests say that come together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.block_status import BlocksStatus
from modelrollout.gates.blocks import COST, ERRORS, LOG_SECONDS, Blocks, Dispersion, latency_key
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.moments import LogMoments
from modelrollout.gates.totals import Totals
from tests.unit.gates.judging import NOTHING, counters

SLOW = latency_key(1700)


def shares(slow: list[int], failed: list[int] | None = None) -> tuple[Blocks, dict[str, float]]:
    """Blocks of a candidate that was looked at after every request, and their design effects."""
    blocks, measured = Blocks(), NOTHING
    for n, bad in enumerate(np.cumsum(slow), 1):
        failures = 0 if failed is None else int(np.cumsum(failed)[n - 1])
        measured = counters(n - failures, slow=int(bad), failed=failures)
        blocks = blocks.add(measured, None, [1700])
    return blocks, blocks.design_effects(measured, None, [1700])


def arms(candidate: list[float], stable: list[float]) -> Comparison:
    def totals(logs: list[float]) -> Totals:
        moments = LogMoments(len(logs), sum(logs), sum(value**2 for value in logs))
        return replace(NOTHING, log_moments={"all": moments})

    return Comparison(candidate=totals(candidate), stable=totals(stable))


def compared(candidate: list[float], stable: list[float], *, looks: int = 5) -> float:
    """Design effect of log times, with two requests at stable for one at the candidate."""
    blocks, comparison = Blocks(), arms([], [])
    for n in range(looks, len(candidate) + 1, looks):
        comparison = arms(candidate[:n], stable[: 2 * n])
        blocks = blocks.add(NOTHING, comparison, [])
    return blocks.design_effects(NOTHING, comparison, [])[LOG_SECONDS]


def correlated(rho: float, n: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    noise, values = rng.normal(size=n), [0.0]
    for shock in noise:
        values.append(rho * values[-1] + (1 - rho**2) ** 0.5 * shock)
    return [0.3 * value + 7 for value in values[1:]]


def test_slow_requests_in_a_burst_count_as_fewer() -> None:
    # given 15 slow requests of 150, spread evenly or in one burst
    even = [1 if n % 10 == 0 else 0 for n in range(150)]
    burst = [1] * 15 + [0] * 135

    # then only the burst has a design effect, and a large one
    assert shares(even)[1][SLOW] == 1.0
    assert shares(burst)[1][SLOW] > 5


def test_without_a_slow_request_there_is_nothing_to_correct() -> None:
    assert shares([0] * 300)[1] == {SLOW: 1.0, ERRORS: 1.0, COST: 1.0}


def test_failures_are_counted_apart() -> None:
    effects = shares([0] * 120, [1] * 12 + [0] * 108)[1]
    assert effects[ERRORS] > 3
    assert effects[SLOW] > 3


@pytest.mark.parametrize(("images", "varies"), [((2, 2), False), ((1, 4), True)])
def test_images_per_request_are_part_of_the_spread_of_cost(
    images: tuple[int, int], *, varies: bool
) -> None:
    """A request that takes as long for one image as for four says nothing exact of one image."""
    rng = np.random.default_rng(11)
    blocks, measured, delivered = Blocks(), NOTHING, 0
    for n in range(1, 301):
        delivered += int(rng.choice(images))
        measured = replace(counters(n, spread=0.0), images=delivered)
        blocks = blocks.add(measured, None, [])
    effect = blocks.design_effects(measured, None, [])[COST]
    # Requests of equal times alone would make the cost as good as exact.
    assert (effect > 1000) is varies


def test_times_that_depend_on_the_one_before_count_as_fewer() -> None:
    independent = [
        compared(correlated(0, 300, 2 * s), correlated(0, 600, 2 * s + 1)) for s in range(40)
    ]
    dependent = [
        compared(correlated(0.6, 300, 2 * s), correlated(0, 600, 2 * s + 1)) for s in range(40)
    ]
    # By the formula for means of blocks of ten the arm's variance is 3.3 times as great.
    assert np.mean(np.array(independent) > 1) <= 0.2
    assert 1.5 < np.median(dependent) < 4


def test_a_drift_that_both_arms_share_is_no_dependence() -> None:
    drift = np.linspace(0, 2, 300)
    candidate = correlated(0, 300, 1) + drift
    stable = correlated(0, 600, 2) + np.repeat(drift, 2)
    assert compared(candidate.tolist(), stable.tolist()) == 1.0


def test_another_comparison_begins_with_no_blocks() -> None:
    # given some blocks
    blocks = Blocks().add(NOTHING, arms([7.0] * 20, [7.1] * 40), [])
    assert blocks.dispersions[LOG_SECONDS].blocks == 1

    # when there is none for a while, or one with fewer requests
    gone = blocks.add(NOTHING, None, [])
    again = blocks.add(NOTHING, arms([7.0] * 5, [7.1] * 9), [])

    # then nothing of the blocks is left
    assert LOG_SECONDS not in gone.dispersions
    assert LOG_SECONDS not in again.dispersions
    assert again.classes["all"][0].count == 5


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 59))
def test_a_restart_of_the_operator_changes_nothing(slow: list[bool], cut: int) -> None:
    def course(*, restart: bool) -> Blocks:
        blocks = Blocks()
        for n in range(1, len(slow) + 1):
            if restart and n == cut:
                stored = BlocksStatus.model_validate(blocks.to_status().to_api())
                blocks = Blocks.from_status(stored)
            logs = [7.0 + 0.1 * bad for bad in slow[:n]]
            measured = counters(n, slow=sum(slow[:n]))
            blocks = blocks.add(measured, arms(logs, logs), [1700])
        return blocks

    assert course(restart=True) == course(restart=False)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(-100, 100)), max_size=30))
def test_a_design_effect_is_never_below_one(blocks: list[tuple[float, float]]) -> None:
    dispersion = Dispersion()
    for weight, mean in blocks:
        dispersion = dispersion.add(weight, weight * mean)
    for variance in (0.0, 1e-9, 1.0, float("nan")):
        assert dispersion.design_effect(variance) >= 1


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_independent_requests_are_seldom_taken_for_bursts(share: float) -> None:
    rng = np.random.default_rng(5)
    found = [shares((rng.random(200) < share).astype(int).tolist())[1][SLOW] for _ in range(60)]
    assert sum(effect > 1 for effect in found) <= 0.05 * 60 + 3 * (0.05 * 0.95 * 60) ** 0.5
