"""What an accepted rollout says of its gates: once, and once more when stable is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from modelrollout.gates.evidence import Snapshot
from modelrollout.gates.totals import Totals
from modelrollout.rollout.acceptance import awaits_lint
from modelrollout.rollout.inputs import MetricsFailure
from tests.unit.rollout.story import LATENCY_GATE, Story, counters, warm_up

AT_BEST = (
    "accepted; the gates need at least 35 requests after 5 of warm-up, 40 s at 60 requests/min"
)


def prometheus_knows_stable(story: Story, requests: int, **more: Any) -> None:
    """Prometheus answers with counters of stable's pods, and of no other."""
    stable = [counters(pod.name, story.now, requests, **more) for pod in story.stable_pods]
    story.metrics = Snapshot(story.now, {("team", item.pod): item for item in stable}, probes={})


def loading(**changes: Any) -> Story:
    """A story in which a candidate is being loaded beside stable."""
    story = Story(**changes)
    story.bootstrap()
    story.declare(**{"steps": 20, **changes})
    story.look()
    assert story.stage == "Load"
    return story


def told(story: Story) -> str:
    accepted = story.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("True", "Valid")
    return accepted.message


def test_a_new_spec_is_told_what_its_gates_need() -> None:
    story = Story()
    story.look()
    assert told(story) == AT_BEST


def test_stables_counters_make_it_more_precise_while_the_candidate_is_loaded() -> None:
    story = loading()
    assert told(story) == AT_BEST
    prometheus_knows_stable(story, 500, slow=20)
    story.look()
    assert told(story) == (
        "accepted; a candidate like today's stable needs about 105 requests after 5 of warm-up, "
        "1 min 50 s at 60 requests/min"
    )
    assert story.stage == "Load"


def test_a_limit_that_stable_exceeds_is_warned_of_and_stops_nothing() -> None:
    story = loading()
    prometheus_knows_stable(story, 500, slow=150)
    story.look()
    assert "gate 'latency': a candidate like today's stable (30 % of 500 slower than 500 ms, " in (
        told(story)
    )
    assert "would fail in 100 % of trials; raise `latency.maxMilliseconds`" in told(story)
    story.metrics = None
    story.cluster_follows()
    story.later(5)
    story.look()
    assert story.stage == "Isolated"


def test_all_pods_of_stable_count() -> None:
    story = Story(replicas=2)
    story.bootstrap()
    story.declare(steps=20, replicas=2)
    story.look()
    assert len(story.stable_pods) == 2
    prometheus_knows_stable(story, 20, slow=10)
    story.look()
    assert "(50 % of 40 slower than 500 ms, limit 10 %)" in told(story)


def test_it_is_said_once_and_does_not_change_with_every_look() -> None:
    story = loading()
    story.forgetful = True
    prometheus_knows_stable(story, 500, slow=150)
    story.look()
    first = story.condition("Accepted")
    for requests in (600, 5000):
        story.later(5)
        prometheus_knows_stable(story, requests, slow=2)
        story.look()
        assert story.condition("Accepted") == first
    story.cluster_follows()
    story.later(5)
    story.look()
    warm_up(story)
    story.measured(20)
    story.look()
    assert story.stage == "Isolated"
    assert story.condition("Accepted") == first


def test_a_stable_that_is_known_only_during_the_trial_is_told_of_then() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    warm_up(story)
    story.measured(20, stable=[12])
    story.look()
    assert told(story) == AT_BEST
    story.later(2)
    story.measured(25, stable=[40])
    story.look()
    assert told(story).startswith("accepted; a candidate like today's stable needs about 35")


def test_other_gates_are_told_of_anew() -> None:
    story = loading()
    prometheus_knows_stable(story, 500, slow=150)
    story.look()
    relaxed = {"name": "latency", "latency": {"percentile": 50, "maxMilliseconds": 500}}
    story.declare(steps=20, gates=[relaxed])
    story.metrics = None
    story.look()
    assert told(story).startswith("accepted; the gates need at least 30 requests")
    prometheus_knows_stable(story, 500, slow=150)
    story.look()
    assert told(story).startswith("accepted; a candidate like today's stable needs about 47")


def test_a_spec_that_was_refused_in_between_is_told_of_again() -> None:
    story = loading()
    story.name_taken = "images"
    story.look()
    assert story.condition("Accepted").reason == "NameConflict"
    story.name_taken = ""
    story.look()
    assert told(story) == AT_BEST


def test_without_prometheus_the_candidate_is_loaded_all_the_same() -> None:
    story = loading()
    before = story.status
    story.metrics = MetricsFailure("PrometheusUnreachable", "no connection")
    assert story.look() == before
    assert story.condition("MetricsAvailable").reason == "NotNeeded"
    story.cluster_follows()
    story.later(5)
    story.look()
    assert story.stage == "Isolated"


UNKNOWN = {
    "too few": {"succeeded": 29},
    "no number": {"gpu_seconds": math.nan},
    "negative": {"failed": -3},
}


@pytest.mark.parametrize("broken", UNKNOWN.values(), ids=UNKNOWN)
def test_numbers_that_say_nothing_are_not_waited_for(broken: dict[str, Any]) -> None:
    story = loading()
    (pod,) = story.stable_pods
    totals: Totals = replace(counters(pod.name, story.now, 500, slow=150), **broken)
    story.metrics = Snapshot(story.now, {("team", pod.name): totals}, probes={})
    before = story.status
    assert story.look() == before
    assert told(story) == AT_BEST


def test_stable_is_asked_for_only_while_that_is_news() -> None:
    story = Story()
    story.look()
    assert not awaits_lint(story.status, story.generation), "there is no stable yet"
    story.bootstrap()
    assert not awaits_lint(story.status, story.generation), "nothing is on trial"
    story.declare(steps=20, gates=[LATENCY_GATE])
    story.look()
    assert awaits_lint(story.status, story.generation)
    prometheus_knows_stable(story, 500)
    story.look()
    assert not awaits_lint(story.status, story.generation), "it has been told"
    assert awaits_lint(story.status, story.generation + 1), "another spec has other gates"
