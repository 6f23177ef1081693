"""What candidate and stable are compared on, and what stable's troubles do to it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from imagegen import contract
from modelrollout.gates.evidence import Snapshot
from modelrollout.gates.moments import OTHER_CLASSES
from modelrollout.gates.totals import LogMoments
from modelrollout.rollout.comparison import MOST_BEGINNINGS, MOST_PODS
from tests.unit.rollout.story import PLAIN, Story, counters
from tests.unit.rollout.trials import measuring, since_then, trial


def test_both_arms_are_compared_on_what_they_did_since_the_same_moment() -> None:
    story = measuring()
    story.measured(25, stable=[100])
    story.look()
    assert since_then(story) == (20, 95)
    comparison = story.evidence().comparison
    assert comparison is not None
    assert comparison.candidate.time == comparison.stable.time == story.now
    assert comparison.candidate.log_moments[PLAIN].count == 20
    assert comparison.stable.log_moments[PLAIN].count == 95
    record = story.candidate.comparison
    assert record is not None
    assert record.candidate is not None
    assert {record.candidate.time} == {item.time for item in record.stable}


def test_nothing_is_compared_before_the_warm_up_is_over() -> None:
    story = trial()
    for requests in (0, 4):
        story.measured(requests)
        story.look()
        assert story.evidence().comparison is None
        assert "warm-up" in story.evidence().comparison_problem
        story.later(2)


def test_memory_that_stable_ran_out_of_long_ago_is_not_compared() -> None:
    story = trial()
    pod = story.stable_pods[0].name
    for requests, times in ((0, 7), (5, 7), (25, 8)):
        story.measured(requests)
        assert isinstance(story.metrics, Snapshot)
        found = counters(pod, story.now, requests, out_of_memory=times)
        servers = {**story.metrics.servers, ("team", pod): found}
        story.metrics = replace(story.metrics, servers=servers)
        story.look()
        story.later(2)
    comparison = story.evidence().comparison
    assert comparison is not None
    assert comparison.stable.out_of_memory == 1


def test_a_few_pods_of_stable_are_compared_with_by_name() -> None:
    story = measuring(replicas=7)
    story.measured(25, stable=[10, 11, 12, 13, 14, 15, 16])
    story.look()
    names = sorted(pod.name for pod in story.stable_pods)[:MOST_PODS]
    comparison = story.evidence().comparison
    assert comparison is not None
    assert comparison.stable.pod == ", ".join(names)
    assert comparison.stable.succeeded == 10 + 11 + 12 - 3 * 5


def test_a_pod_without_counters_is_not_chosen() -> None:
    story = trial(replicas=2)
    first = min(pod.name for pod in story.stable_pods)
    for requests in (0, 5, 25):
        story.measured(requests)
        story.hide(first)
        story.look()
        story.later(2)
    assert since_then(story) == (20, 20)
    story.measured(45)
    story.look()
    assert since_then(story) == (40, 40), "the pods stay the same when more could be had"


@pytest.mark.parametrize("why", ["", "pod team/images: two series of x that differ in job"])
def test_counters_of_stable_that_are_missing_are_waited_for(why: str) -> None:
    story = measuring()
    pod = story.stable_pods[0].name
    story.measured(15)
    story.hide(pod, why)
    story.look()
    assert story.evidence().comparison is None
    assert story.evidence().comparison_problem == (
        why or f"Prometheus has no counters of stable's pod {pod}"
    )
    story.later(2)
    story.measured(35)
    story.look()
    assert since_then(story) == (30, 30)


def test_without_counters_of_stable_from_the_start_it_is_said() -> None:
    story = trial()
    pod = story.stable_pods[0].name
    for requests in (0, 5, 25):
        story.measured(requests)
        story.hide(pod)
        story.look()
        story.later(2)
    assert story.evidence().comparison_problem == (
        f"Prometheus has no counters of stable's pod {pod}"
    )
    stable = story.status.stable
    assert stable is not None
    story.change_pod(stable.revision, ready=False)
    story.look()
    assert story.evidence().comparison_problem == "stable has no ready pod to compare with"


def test_a_pod_of_stable_that_is_gone_makes_both_arms_begin_anew() -> None:
    story = measuring()
    story.measured(25)
    story.look()
    stable = story.status.stable
    assert stable is not None
    gone = story.stable_pods[0].name
    story.pods[stable.revision] = [story.pod(stable.revision, index=5)]
    story.later(2)
    story.measured(45, stable=[3])
    before = story.candidate.baseline
    story.look()
    assert since_then(story) == (0, 0)
    record = story.candidate.comparison
    assert record is not None
    assert record.notice == f"pod {gone} of stable is gone"
    assert record.beginnings == 2
    assert story.candidate.baseline == before, "the candidate's own evidence goes on"
    assert story.candidate.requests == "40/200"
    story.later(2)
    story.measured(55, stable=[10])
    story.look()
    assert since_then(story) == (10, 7)


@pytest.mark.parametrize("change", [{"terminating": True}, {"evicted": "Evicted"}])
def test_a_pod_of_stable_on_its_way_out_is_gone(change: dict[str, object]) -> None:
    story = measuring()
    stable = story.status.stable
    assert stable is not None
    story.change_pod(stable.revision, **change)
    pod = story.stable_pods[0].name
    story.measured(25)
    story.look()
    assert story.evidence().comparison is None
    assert story.evidence().comparison_problem.startswith(f"pod {pod} of stable is gone; ")


def test_counters_of_stable_that_went_backwards_make_both_arms_begin_anew() -> None:
    story = measuring()
    story.measured(25, stable=[3])
    story.look()
    assert since_then(story) == (0, 0)
    record = story.candidate.comparison
    assert record is not None
    assert "went back" in record.notice
    story.later(2)
    story.measured(35, stable=[14])
    story.look()
    assert since_then(story) == (10, 11)


def lagging(story: Story, seconds: float) -> None:
    """Prometheus answers with what was so a while ago."""
    assert isinstance(story.metrics, Snapshot)
    story.metrics = replace(story.metrics, time=story.now - timedelta(seconds=seconds))


def test_counters_of_an_earlier_life_of_a_pod_are_not_begun_with() -> None:
    story = measuring()
    stable = story.status.stable
    assert stable is not None
    pod = story.stable_pods[0].name
    # Given a container that was restarted, while Prometheus still tells of the time before
    story.later(10)
    story.change_pod(stable.revision, restarts=1)
    story.measured(25, stable=[9])
    lagging(story, 4)
    story.look()
    assert story.evidence().comparison is None
    assert story.evidence().comparison_problem == (
        f"the container of pod {pod} of stable was restarted; "
        "the comparison with stable begins with the next counters of its pods"
    )
    # When the counters are those of the new life
    story.later(6)
    story.measured(45, stable=[11])
    lagging(story, 4)
    story.look()
    assert since_then(story) == (0, 0)
    story.later(2)
    story.measured(50, stable=[13])
    lagging(story, 4)
    story.look()
    assert since_then(story) == (5, 2)


def test_the_comparison_begins_with_the_evidence_although_prometheus_lags() -> None:
    story = trial()
    for requests in (0, 0, 5, 25):
        story.later(5)
        story.measured(requests)
        lagging(story, 4)
        story.look()
    assert story.candidate.requests == "20/200"
    assert since_then(story) == (20, 20)


def test_a_candidate_that_begins_anew_is_compared_anew() -> None:
    tolerant = [{"name": "oom", "outOfMemory": {"maxCount": 2}}]
    story = measuring(gates=tolerant)
    story.measured(25)
    story.look()
    story.later(2)
    story.measured(1, stable=[45])
    story.look()
    assert story.evidence().comparison is None
    assert "warm-up" in story.evidence().comparison_problem
    story.later(2)
    story.measured(6, stable=[50])
    story.look()
    assert since_then(story) == (0, 0)


def test_a_comparison_does_not_begin_for_ever() -> None:
    story = measuring()
    stable = story.status.stable
    assert stable is not None
    for turn in range(1, MOST_BEGINNINGS):
        story.later(2)
        story.change_pod(stable.revision, restarts=turn)
        story.measured(5 + turn)
        story.look()
        assert since_then(story) == (0, 0)
    story.later(2)
    story.change_pod(stable.revision, restarts=MOST_BEGINNINGS)
    story.measured(25)
    story.look()
    assert story.evidence().comparison is None
    assert "has begun 5 times and does not begin again" in story.evidence().comparison_problem
    assert story.candidate.requests == "20/200", "gates on the candidate alone go on"


def test_a_trial_that_ends_or_begins_anew_keeps_no_comparison() -> None:
    story = measuring()
    assert story.candidate.comparison is not None
    story.measured(105)
    story.look()
    assert story.stage == "Promote"
    assert story.candidate.comparison is None


def test_status_stays_small_however_many_pods_and_classes_stable_has() -> None:
    story = trial(replicas=100)
    much = LogMoments(12_345, 86_415.123456789, 610_905.123456789)
    for requests in (0, 5, 25):
        story.measured(requests)
        assert isinstance(story.metrics, Snapshot)
        busy = {name: much for name in contract.REQUEST_CLASSES if name != PLAIN}
        stable = {("team", pod.name) for pod in story.stable_pods}
        servers = {
            key: replace(totals, log_moments={**totals.log_moments, **busy})
            if key in stable
            else totals
            for key, totals in story.metrics.servers.items()
        }
        story.metrics = replace(story.metrics, servers=servers)
        story.look()
        story.later(2)
    assert len(json.dumps(story.status.to_api())) < 32_768
    # The classes that are kept apart are the same in both arms
    record = story.candidate.comparison
    assert record is not None
    assert record.candidate is not None
    kept = {item.request_class for item in record.candidate.log_moments}
    assert {PLAIN, OTHER_CLASSES} < kept
    assert all({item.request_class for item in arm.log_moments} == kept for arm in record.stable)
    assert len(record.stable) == MOST_PODS


def test_stable_is_compared_at_the_price_of_its_own_gpus() -> None:
    story = measuring()
    stable = story.status.stable
    assert stable is not None
    assert (stable.pool, stable.gpu_count) == ("preview", 1)
    assert story.evidence().stable_gpu_hour_price == Decimal(3)
    assert story.evidence().stable_gpu_count == 1
    dear = stable.model_copy(update={"pool": "dear", "gpu_count": 4})
    story.status = story.status.model_copy(update={"stable": dear})
    price = story.evidence().stable_gpu_hour_price
    assert price is not None
    assert price.is_nan(), "a pool that is no longer offered has no price"
    assert story.evidence().stable_gpu_count == 4


def without_a_word_of_the_probe(story: Story) -> None:
    assert isinstance(story.metrics, Snapshot)
    story.metrics = replace(story.metrics, probes={})
    story.look()
    story.later(2)


def test_repeats_are_told_until_the_load_begins() -> None:
    story = trial()
    story.loading = False
    story.measured(0)
    without_a_word_of_the_probe(story)
    assert story.candidate.requests == "repeats 0/8"
    for prompts, shown in ((0, "repeats 0/8"), (3, "repeats 3/8"), (9, "repeats 8/8")):
        story.repeat_prompts = prompts
        story.measured(3 * prompts)
        story.look()
        assert story.candidate.requests == shown
        story.later(2)
    story.loading = True
    story.measured(24)
    story.look()
    assert story.candidate.requests == "0/200"
    without_a_word_of_the_probe(story)
    assert story.candidate.requests == "0/200"
