"""Containers that are restarted in mid-trial: what is begun anew, and what is never forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.evidence import MOST_BEGINNINGS
from modelrollout.rollout.inputs import MetricsFailure
from tests.unit.rollout.story import OOM_KILLED, Story, warm_up

SLOW = {"name": "latency", "latency": {"percentile": 90, "maxMilliseconds": 500}}
TOLERANT = [SLOW, {"name": "oom", "outOfMemory": {"maxCount": 2}}]


def trial(*, forgetful: bool = False, **changes: object) -> Story:
    """A candidate whose warm-up is over, of which memory may run out twice."""
    story = Story(**{"gates": TOLERANT, **changes})
    story.bootstrap()
    story.try_another(**{"gates": TOLERANT, **changes})
    story.forgetful = forgetful
    warm_up(story)
    return story


def look(story: Story, requests: int, *, slow: int = 0, out_of_memory: int = 0) -> None:
    story.later(2)
    story.measured(requests, slow=slow, out_of_memory=out_of_memory)
    story.look()


def killed(story: Story, times: int = 1) -> None:
    story.change_pod(story.candidate.revision, restarts=times, last_termination=OOM_KILLED)


def events(story: Story) -> int:
    """Times that memory ran out, as the gate counts them."""
    evidence = story.evidence()
    assert evidence.latest is not None
    return evidence.latest.out_of_memory + evidence.container_out_of_memory


# -- memory that ran out ---------------------------------------------------------------------------
@pytest.mark.parametrize("forgetful", [False, True])
def test_events_of_a_life_that_ended_count(*, forgetful: bool) -> None:
    story = trial(forgetful=forgetful)
    look(story, 25, out_of_memory=2)
    assert story.stage == "Isolated", "two are allowed"
    # When the kernel ends the container, and its server counts from 0
    killed(story)
    look(story, 0)
    look(story, 5)
    look(story, 105)
    assert story.stage == "Rollback"
    assert story.candidate.reason == "GateFailed"
    assert "out of memory 3 times (2 in the server, 1 by the kernel)" in story.candidate.message


def test_what_prometheus_still_tells_of_an_ended_life_is_not_counted_twice() -> None:
    story = trial()
    look(story, 25, out_of_memory=1)
    killed(story)
    for requests in (25, 26):
        story.later(1)
        story.measured(requests, out_of_memory=1)
        assert isinstance(story.metrics, Snapshot)
        late = story.metrics.time - timedelta(seconds=30)
        story.metrics = replace(story.metrics, time=max(late, story.now - timedelta(seconds=4)))
        story.look()
        assert story.candidate.requests == "0/200"
    look(story, 0)
    assert events(story) == 2
    assert story.stage == "Isolated"


def test_what_an_ended_life_did_last_is_counted_when_prometheus_tells_of_it() -> None:
    story = trial()
    look(story, 25, out_of_memory=1)
    killed(story)
    story.later(1)
    story.measured(25, out_of_memory=2)
    assert isinstance(story.metrics, Snapshot)
    story.metrics = replace(story.metrics, time=story.now - timedelta(seconds=1))
    story.look()
    look(story, 0)
    assert story.stage == "Rollback"
    assert "(2 in the server, 1 by the kernel)" in story.candidate.message


def test_counters_scraped_before_the_restart_are_those_of_the_life_before() -> None:
    story = trial()
    story.scrape_interval = timedelta(seconds=5)
    look(story, 25, out_of_memory=1)
    killed(story)
    look(story, 25, out_of_memory=1)
    look(story, 25, out_of_memory=1)
    assert story.evidence().latest is None
    assert "since it was started" in story.evidence().problem
    story.later(3)
    look(story, 40, out_of_memory=1)
    assert events(story) == 3, "it has outgrown the life before by now"


def test_events_are_kept_when_the_pod_is_lost_to_its_node() -> None:
    story = trial()
    killed(story)
    look(story, 25)
    look(story, 30, out_of_memory=1)
    assert events(story) == 2
    candidate = story.candidate.revision
    story.pods[candidate] = [story.pod(candidate, index=7)]
    story.later(2)
    story.look()
    assert story.stage == "Load"
    story.look()
    assert story.stage == "Isolated"
    look(story, 0)
    assert events(story) == 2
    # When the kernel ends a container of the new pod too, the second of two that are allowed
    killed(story)
    look(story, 0)
    assert story.stage == "Rollback"
    assert "(1 in the server, 2 by the kernel)" in story.candidate.message


def test_kills_in_pods_that_are_gone_count_without_prometheus() -> None:
    story = trial()
    killed(story, 2)
    look(story, 25)
    candidate = story.candidate.revision
    story.pods[candidate] = [story.pod(candidate, index=7)]
    story.later(2)
    story.look()
    story.look()
    story.metrics = MetricsFailure("PrometheusUnreachable", "connection refused")
    killed(story)
    story.look()
    assert story.candidate.reason == "ContainerOutOfMemory"
    assert "OOMKilled, 3 times; 2 allowed" in story.candidate.message


def test_another_attempt_begins_without_events() -> None:
    story = trial()
    look(story, 25, out_of_memory=2)
    gates = [SLOW, {"name": "oom", "outOfMemory": {"maxCount": 1}}]
    story.declare(steps=30, gates=gates)
    for _ in range(4):
        story.look()
        story.cluster_follows()
        story.later(5)
    assert story.stage == "Isolated"
    story.measured(5, out_of_memory=1)
    story.look()
    assert events(story) == 1


# -- evidence --------------------------------------------------------------------------------------
def test_a_life_that_outgrows_the_one_before_is_another_all_the_same() -> None:
    story = trial()
    look(story, 25, slow=4)
    killed(story)
    look(story, 60, slow=8)
    assert not story.candidate.warmed_up
    assert story.candidate.requests == "0/200"
    look(story, 65, slow=8)
    assert story.candidate.warmed_up
    look(story, 75, slow=8)
    assert story.candidate.requests == "10/200"
    comparison = story.evidence().comparison
    assert comparison is not None
    assert comparison.candidate.succeeded == 10


def test_without_a_warm_up_both_arms_are_compared_anew_with_the_new_life() -> None:
    analysis = {"warmupRequests": 0, "minRequests": 30, "maxRequests": 200}
    story = trial(analysis=analysis)
    look(story, 25)
    killed(story)
    look(story, 60)
    comparison = story.evidence().comparison
    assert comparison is not None
    assert comparison.candidate.succeeded == comparison.stable.succeeded == 0
    assert story.candidate.requests == "0/200"


def test_tolerated_restarts_do_not_let_a_candidate_begin_for_ever() -> None:
    patient = [SLOW, {"name": "oom", "outOfMemory": {"maxCount": 100}}]
    story = trial(gates=patient)
    for turn in range(1, MOST_BEGINNINGS + 1):
        assert story.candidate.beginnings == turn
        # Given requests of which more are slow than may be, and a kill before that is proved
        look(story, 25, slow=4)
        assert story.stage == "Isolated", turn
        killed(story, turn)
        look(story, 0)
        look(story, 5)
    assert story.stage == "Held"
    assert story.candidate.reason == "Inconclusive"
    assert "the evidence has begun 5 times in this stage" in story.candidate.message


def test_every_stage_may_begin_as_often() -> None:
    patient = [SLOW, {"name": "oom", "outOfMemory": {"maxCount": 100}}]
    strategy = {"stages": [{"name": "first"}, {"name": "second"}]}
    story = trial(gates=patient, strategy=strategy)
    for turn in range(1, MOST_BEGINNINGS):
        killed(story, turn)
        look(story, 0)
        look(story, 5)
    assert story.candidate.beginnings == MOST_BEGINNINGS
    look(story, 105)
    assert story.candidate.stage_name == "second"
    assert story.candidate.beginnings == 0
    look(story, 106)
    look(story, 111)
    assert story.candidate.beginnings == 1
