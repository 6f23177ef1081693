"""The synthetic traffic is like the service that it is modelled on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.traffic import STUDIO, generate, residuals

TRAFFIC = generate(STUDIO, runs=200, requests=1500, share=0.2, random=np.random.default_rng(8))


def test_overall_latency_is_that_of_the_published_service() -> None:
    found = np.quantile(np.exp(TRAFFIC.log_seconds), [0.5, 0.9, 0.95, 0.99])
    assert found == pytest.approx([23, 53, 70, 106], rel=0.08)


def test_neighbours_correlate_as_published() -> None:
    centred = TRAFFIC.log_seconds - TRAFFIC.log_seconds.mean()
    lag = (centred[:, 1:] * centred[:, :-1]).mean() / centred.var()
    assert lag == pytest.approx(0.20, abs=0.03)


@pytest.mark.parametrize("index", range(4))
def test_each_class_has_its_share_level_and_spread(index: int) -> None:
    item, members = STUDIO.classes[index], TRAFFIC.request_class == index
    log_seconds = TRAFFIC.log_seconds[members]
    assert members.mean() == pytest.approx(item.weight, abs=0.01)
    assert np.exp(np.median(log_seconds)) == pytest.approx(item.median, rel=0.08)
    assert log_seconds.std() == pytest.approx(item.log_deviation, rel=0.05)


def test_a_fifth_goes_to_the_candidate_whatever_the_request() -> None:
    assert TRAFFIC.candidate.mean() == pytest.approx(0.2, abs=0.005)
    difference = TRAFFIC.log_seconds[TRAFFIC.candidate].mean() - TRAFFIC.log_seconds.mean()
    assert difference == pytest.approx(0, abs=0.02)


def test_requests_come_in_order_and_in_bursts() -> None:
    assert (np.diff(TRAFFIC.tick, axis=1) >= 0).all()
    per_tick = np.bincount(TRAFFIC.tick[0])
    assert per_tick.var() > 2 * per_tick.mean(), "independent arrivals have equal ones"


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_residuals_are_standard_and_remember(correlation: float) -> None:
    series = residuals((400, 500), correlation, np.random.default_rng(9))
    assert series.std() == pytest.approx(1, rel=0.02)
    lag = (series[:, 1:] * series[:, :-1]).mean()
    assert lag == pytest.approx(correlation, abs=0.02)
