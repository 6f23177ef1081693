"""Trials that are disturbed: by people, nodes, the probe, and by the candidate itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.inputs import Commands
from modelrollout.rollout.world import Termination
from tests.unit.rollout.story import LATENCY_GATE, MEMORY_GATE, OOM_KILLED, Story, warm_up


def test_a_gate_that_can_never_pass_is_refused_before_a_gpu_is_spent() -> None:
    story = Story()
    story.bootstrap()
    strict: dict[str, object] = {"name": "errors", "errors": {"maxPercent": "1"}}
    story.declare(steps=20, gates=[strict])
    story.look()
    accepted = story.condition("Accepted")
    assert accepted.reason == "GateInfeasible"
    assert "gate 'errors' can never pass: it needs 367 requests" in accepted.message
    assert story.status.candidate is None


def test_a_tolerated_kill_restarts_the_evidence() -> None:
    tolerant = [LATENCY_GATE, {"name": "oom", "outOfMemory": {"maxCount": 2}}]
    story = Story(gates=tolerant)
    story.bootstrap()
    candidate = story.try_another(gates=tolerant)
    warm_up(story)
    story.measured(25)
    story.look()

    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED)
    story.later(2)
    story.measured(1)
    story.look()
    assert story.stage == "Isolated"
    assert story.candidate.requests == "0/200"
    assert not story.candidate.warmed_up
    story.later(2)
    story.measured(6)
    story.look()
    assert story.candidate.warmed_up


def test_counters_that_cannot_be_used_say_why() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.measured(0)
    assert isinstance(story.metrics, Snapshot)
    pod = story.pods[candidate][0].name
    story.metrics = replace(
        story.metrics, servers={}, unusable={("team", pod): "scraped by two targets"}
    )
    story.look()
    assert story.status.verdict == "Invalid"
    assert "scraped by two targets" in story.status.gates[0].message


def test_a_service_of_somebody_else_is_not_taken_over() -> None:
    story = Story()
    story.name_taken = "images"
    story.look()
    assert story.condition("Accepted").reason == "NameConflict"
    assert story.status.candidate is None
    assert story.desired.servers == ()

    story.name_taken = ""
    story.look()
    assert story.stage == "Load"


def bring_to(story: Story, stage: str, **changes: object) -> str:
    candidate = story.try_another(**changes)
    warm_up(story)
    story.measured(105)
    story.look()
    if stage == "Switch":
        story.look()
        story.cluster_follows()
    assert story.stage == stage
    return candidate


@pytest.mark.parametrize("stage", ["Promote", "Switch"])
def test_from_promotion_on_the_template_of_the_tested_pods_is_frozen(stage: str) -> None:
    story = Story()
    story.bootstrap()
    candidate = bring_to(story, stage)
    server = next(item for item in story.desired.servers if item.revision == candidate)
    assert server.content is None


def test_other_criteria_before_the_switch_send_the_candidate_back_to_be_measured() -> None:
    story = Story()
    story.bootstrap()
    bring_to(story, "Promote")
    stricter = {"name": "latency", "latency": {"percentile": 90, "maxMilliseconds": 100}}
    story.declare(steps=20, gates=[stricter, MEMORY_GATE])
    story.look()
    assert story.stage == "Load"


def test_a_tested_pod_that_is_lost_before_the_switch_is_tested_again() -> None:
    story = Story()
    story.bootstrap()
    candidate = bring_to(story, "Promote")
    story.later(1)
    story.pods[candidate] = [story.pod(candidate, index=9)]
    story.look()
    assert story.stage == "Load"


def test_a_switch_without_a_single_pod_is_taken_back_at_once() -> None:
    story = Story()
    stable = story.bootstrap()
    candidate = bring_to(story, "Switch")
    story.look()
    story.pods[candidate] = []
    story.serving_pods = frozenset()
    story.later(4)
    story.look()
    assert story.stage == "Rollback"
    assert story.candidate.reason == "SwitchDeadlineExceeded"
    assert story.desired.serving_revision == stable


def test_the_time_to_switch_begins_when_users_were_switched() -> None:
    story = Story()
    story.bootstrap()
    candidate = bring_to(story, "Promote")
    story.look()
    assert story.stage == "Switch"
    story.later(600)
    story.look()
    assert story.stage == "Switch", "the operator was away before it could switch anybody"
    story.cluster_follows()
    story.look()
    story.later(4)
    story.look()
    assert story.status.stable is not None
    assert story.status.stable.revision == candidate


def test_a_tested_pod_that_crashes_before_the_switch_is_not_promoted() -> None:
    story = Story(replicas=2)
    story.bootstrap()
    candidate = bring_to(story, "Promote", replicas=2)
    story.later(3)
    end = Termination("Error", 139)
    story.change_pod(candidate, restarts=1, last_termination=end)
    story.look()
    assert story.stage == "Rollback"
    assert story.candidate.reason == "CrashLoop"


def test_a_probe_that_gave_up_is_no_fault_of_the_candidate() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    story.probe_failed = "BackoffLimitExceeded: no suite named 'typo'"
    story.look()
    assert story.stage == "Held"
    assert story.candidate.reason == "ProbeFailed"
    assert "typo" in story.candidate.message


def test_evidence_begins_with_the_load() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    story.loading = False
    story.measured(24)
    story.look()
    assert story.candidate.baseline is None
    story.loading = True
    story.later(2)
    story.measured(24)
    story.look()
    story.later(2)
    story.measured(60)
    story.look()
    assert story.candidate.warmed_up
    assert story.candidate.requests == "0/200"


def test_an_image_that_fails_to_arrive_counts_only_after_a_while() -> None:
    story = Story()
    story.bootstrap()
    story.declare(steps=20)
    story.look()
    story.cluster_follows()
    story.later(600)
    story.change_pod(story.revision, ready=False, waiting_reason="ErrImagePull")
    story.look()
    assert story.stage == "Load"
    assert story.condition("Promoted").reason == "ImagePull"
    story.later(29)
    story.change_pod(story.revision, waiting_reason="ImagePullBackOff")
    story.look()
    assert story.stage == "Load"
    story.later(1)
    story.look()
    assert story.candidate.reason == "ImagePull"


def test_a_held_candidate_can_be_retried() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.probe_failed = "BackoffLimitExceeded"
    story.look()
    assert story.stage == "Held"
    story.probe_failed = ""
    story.commands = Commands(retry=candidate)
    story.look()
    assert story.stage == "Rollback", "its pods may be past help"
    story.commands = Commands()
    story.cluster_follows()
    story.look()
    story.look()
    assert story.candidate.revision == candidate
    assert story.stage == "Load"
    assert story.candidate.attempt == 3


def test_the_first_revision_waits_for_a_node_as_long_as_it_takes() -> None:
    story = Story(strategy={"deadlines": {"loadSeconds": 60}})
    story.look()
    story.cluster_follows()
    waiting = {"ready": False, "containers_ready": False, "unschedulable": "0/1 nodes"}
    story.change_pod(story.revision, **waiting)
    story.later(3600)
    story.look()
    assert story.stage == "Load"
    story.change_pod(story.revision, unschedulable="")
    story.later(30)
    story.look()
    assert story.stage == "Load", "the time to load begins when there is room"
    story.change_pod(story.revision, ready=True, containers_ready=True)
    story.look()
    assert story.status.stable is not None


def test_failures_under_load_are_judged_although_repeats_were_never_measured() -> None:
    errors = {"name": "errors", "errors": {"maxPercent": "10"}}
    story = Story(gates=[errors])
    story.bootstrap()
    story.try_another(gates=[errors])
    story.measured(0)
    story.look()
    story.later(2)
    story.measured(0, failed=5)
    story.look()
    story.later(2)
    story.measured(0, failed=20)
    story.look()
    assert story.stage == "Rollback"
    assert story.candidate.reason == "GateFailed"


def test_a_probe_that_began_anew_begins_the_evidence_anew() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    warm_up(story)
    story.measured(15)
    story.look()
    story.loading = False
    story.later(2)
    story.measured(60)
    story.look()
    assert story.stage == "Isolated", "its repeats are no load"
    assert story.candidate.baseline is None


def test_without_the_probes_word_nothing_passes() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    warm_up(story)
    story.measured(100)
    assert isinstance(story.metrics, Snapshot)
    story.metrics = replace(story.metrics, probes={})
    story.look()
    assert story.stage == "Isolated"
    assert "no results of the probe" in story.status.gates[0].message


def test_a_container_that_went_down_with_its_node_has_not_crashed() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    end = Termination("Unknown", 255)
    story.change_pod(candidate, restarts=1, last_termination=end)
    story.look()
    assert story.stage == "Isolated"


def test_a_pod_that_no_node_keeps_ends_the_trial_after_a_while() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    for turn in range(6):
        assert story.stage == "Isolated", turn
        story.later(10)
        story.change_pod(candidate, evicted="Evicted", ready=False)
        story.look()
        story.later(10)
        story.pods[candidate] = [story.pod(candidate, index=turn)]
        story.look()
    assert story.stage == "Held"
    assert story.candidate.reason == "PodLost"
