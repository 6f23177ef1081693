from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.engines.base import GenerationSettings
from imagegen.server.costs import CostModel


def settings(side: int = 512, steps: int = 20) -> GenerationSettings:
    return GenerationSettings(side, side, steps, 5.0)


def taught(
    side: int = 512, steps: int = 20, *, decode: float = 0.5, step: float = 0.1, pictures: int = 1
) -> CostModel:
    costs = CostModel()
    teach(costs, side, steps, decode=decode, step=step, pictures=pictures)
    return costs


def teach(
    costs: CostModel, side: int, steps: int, *, decode: float, step: float, pictures: int = 1
) -> None:
    stages = {"decode": decode, "denoise": step * steps}
    costs.observe(settings(side, steps), pictures, sum(stages.values()), stages)


def test_nothing_is_known_before_the_first_batch() -> None:
    assert CostModel().estimate(settings(), 1) == 0


def test_what_was_seen_is_what_is_expected() -> None:
    assert taught().estimate(settings(), 1) == pytest.approx(0.5 + 20 * 0.1)


def test_other_steps_cost_by_the_step_and_decoding_costs_once() -> None:
    assert taught().estimate(settings(steps=40), 3) == pytest.approx(3 * (0.5 + 40 * 0.1))


def test_a_picture_costs_its_share_of_a_batch() -> None:
    assert taught(pictures=4).estimate(settings(), 2) == pytest.approx((0.5 + 2.0) / 2)


def test_an_unknown_size_is_like_its_nearest_neighbour_by_pixels() -> None:
    assert taught(512).estimate(settings(1024), 1) == pytest.approx(4 * 2.5)


def test_of_two_neighbours_the_larger_one_counts() -> None:
    costs = taught(512)
    teach(costs, 1024, 20, decode=4.0, step=1.0)

    assert costs.estimate(settings(768), 1) == pytest.approx(24 * (768 / 1024) ** 2)


def test_an_engine_that_tells_no_stages_is_taken_to_denoise_all_the_time() -> None:
    costs = CostModel()
    costs.observe(settings(steps=10), 1, 2.0, {})

    assert costs.estimate(settings(steps=20), 1) == pytest.approx(4.0)


def test_a_slow_first_batch_is_forgotten() -> None:
    costs = taught(step=3.0)
    for _ in range(20):
        teach(costs, 512, 20, decode=0.5, step=0.1)

    assert costs.estimate(settings(), 1) < 2 * 2.5


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    st.integers(16, 2048),
    st.integers(1, 100),
)
def test_an_estimate_lies_between_what_was_seen(
    seconds: list[float], side: int, steps: int
) -> None:
    costs = CostModel()
    for each in seconds:
        costs.observe(settings(side, steps), 1, each, {"denoise": each / 2})

    estimate = costs.estimate(settings(side, steps), 1)
    assert min(seconds) * 0.999 <= estimate <= max(seconds) * 1.001
