"""What candidate and stable are compared on, and what stable's troubles do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from imagegen import contract
from modelrollout.gates.common_cause import ENOUGH_AT_STABLE
from modelrollout.gates.evidence import Snapshot
from modelrollout.gates.moments import OTHER_CLASSES
from modelrollout.gates.totals import LogMoments
from modelrollout.rollout.comparison import LONGEST_SILENCE, MOST_BEGINNINGS, MOST_PODS
from tests.unit.rollout.story import PLAIN, Story, counters, warm_up

PATIENT = {"gates": [{"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 500}}]}
"""Nothing is decided on the few requests of these stories."""


def trial(**changes: object) -> Story:
    """A candidate that is about to be measured."""
    story = Story(**{**PATIENT, **changes})
    story.bootstrap()
    story.try_another(**{**PATIENT, **changes})
    return story


def measuring(**changes: object) -> Story:
    """A candidate whose warm-up is over, after 5 requests at each pod."""
    story = trial(**changes)
    warm_up(story)
    return story


def since_then(story: Story) -> tuple[int, int]:
    """Requests of candidate and stable since the comparison began."""
    comparison = story.evidence().comparison
    assert comparison is not None, story.evidence().comparison_problem
    return comparison.candidate.succeeded, comparison.stable.succeeded


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


# -- a stable that is silent -----------------------------------------------------------------------
def both_are_bad(story: Story, requests: int) -> None:
    """20 requests failed at both arms: a common cause."""
    story.measured(requests, failed=20, stable_failed=20)


def both_fail() -> Story:
    errors = [{"name": "errors", "errors": {"maxPercent": "5"}}]
    story = trial(gates=errors)
    warm_up(story)
    both_are_bad(story, 40)
    story.look()
    story.later(2)
    assert story.stage == "Isolated"
    assert "a common cause" in story.status.gates[0].message
    return story


def unscraped(story: Story) -> None:
    both_are_bad(story, 41)
    story.hide(story.stable_pods[0].name)


def restarted(story: Story) -> None:
    stable = story.status.stable
    assert stable is not None
    if story.stable_pods[0].restarts == 0:
        story.change_pod(stable.revision, restarts=1)
    story.measured(41, failed=20, stable=[0])


def replaced(story: Story) -> None:
    stable = story.status.stable
    assert stable is not None
    story.pods[stable.revision] = []
    story.measured(41, failed=20)


@pytest.mark.parametrize("silenced", [unscraped, restarted, replaced])
@pytest.mark.parametrize("forgetful", [False, True])
def test_nobody_is_rolled_back_for_a_common_cause_while_stable_is_silent(
    silenced: Callable[[Story], None], *, forgetful: bool
) -> None:
    story = both_fail()
    story.forgetful = forgetful
    began = story.now
    while story.now - began < LONGEST_SILENCE:
        silenced(story)
        story.look()
        assert story.stage == "Isolated"
        assert story.evidence().stable_silent
        story.later(60)
    # When stable stays silent
    silenced(story)
    story.look()
    assert story.stage == "Rollback"
    assert "20 of 56 failed" in story.candidate.message


def test_stable_that_is_heard_again_is_taken_at_its_word() -> None:
    story = both_fail()
    unscraped(story)
    story.look()
    story.later(240)
    both_are_bad(story, 42)
    story.look()
    assert not story.evidence().stable_silent
    assert "a common cause" in story.status.gates[0].message
    # When it is silent again, it is awaited anew
    story.later(240)
    unscraped(story)
    story.look()
    assert story.stage == "Isolated"
    # And when it is well, the candidate is to blame
    story.later(2)
    story.measured(60, failed=40, stable=[2000], stable_failed=20)
    story.look()
    assert story.stage == "Rollback"


def test_a_comparison_that_began_anew_has_to_tell_something_first() -> None:
    story = both_fail()
    restarted(story)
    story.look()
    for requests, stage in ((ENOUGH_AT_STABLE - 1, "Isolated"), (ENOUGH_AT_STABLE, "Rollback")):
        story.later(2)
        story.measured(41, failed=20, stable=[requests])
        story.look()
        assert story.stage == stage


def test_a_stable_that_was_never_heard_of_is_not_awaited_for_long() -> None:
    story = trial(gates=[{"name": "errors", "errors": {"maxPercent": "5"}}])
    began = None
    for requests in (0, 5, 5):
        story.later(2)
        story.measured(requests)
        story.hide(story.stable_pods[0].name)
        story.look()
        began = began or (story.now if story.candidate.warmed_up else None)
    assert began is not None
    while story.stage == "Isolated":
        story.later(20)
        story.measured(5, failed=30)
        story.hide(story.stable_pods[0].name)
        story.look()
    assert LONGEST_SILENCE <= story.now - began < LONGEST_SILENCE + timedelta(seconds=20)
    assert story.stage == "Rollback"


# -- edges that stable does not have ---------------------------------------------------------------
def all_slow(story: Story, requests: int, within: Sequence[dict[int, int]]) -> None:
    """Every request is slow at both arms; stable's pods have edges of their own."""
    story.measured(requests, stable=[requests] * len(within))
    assert isinstance(story.metrics, Snapshot)
    edges = {story.pods[story.candidate.revision][0].name: {700: 0, 1000: 0}}
    edges |= {pod.name: own for pod, own in zip(story.stable_pods, within, strict=True)}
    servers = {
        key: replace(totals, within=edges[key[1]]) for key, totals in story.metrics.servers.items()
    }
    story.metrics = replace(story.metrics, servers=servers)


@pytest.mark.parametrize(
    "within",
    [
        [{500: 0, 1000: 0}],
        [{500: 0, 700: 0, 1000: 0}],
        [{500: 0, 1000: 0}, {500: 0, 700: 0, 1000: 0}],
        [{500: 0, 1000: 0}, {500: 0, 800: 0, 1000: 0}],
    ],
)
def test_slow_requests_of_a_stable_that_lacks_the_edge_are_known_by_its_next(
    within: list[dict[int, int]],
) -> None:
    # Given pods of stable of which some were started before the gate was declared
    gate = {"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 700}}
    story = Story(replicas=len(within))
    story.bootstrap()
    story.try_another(gates=[gate], replicas=len(within))
    for requests in (0, 5, 45):
        all_slow(story, requests, within)
        story.look()
        story.later(2)
    assert story.stage == "Isolated"
    assert "40 of 40 slower than 700 ms" in story.status.gates[0].message
    assert "a common cause" in story.status.gates[0].message
