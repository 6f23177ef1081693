from datetime import timedelta

import pytest

from modelrollout.api.status import AttemptOutcome
from modelrollout.rollout.inputs import Commands, MetricsFailure
from tests.unit.rollout.story import LATENCY_GATE, MEMORY_GATE, OOM_KILLED, Story, warm_up


def test_the_first_revision_serves_on_readiness_alone() -> None:
    story = Story()
    revision = story.bootstrap()
    assert revision == story.revision
    assert story.desired.serving_revision == revision
    assert story.condition("Promoted").reason == "FirstRevision"
    assert story.condition("Ready").status == "True"


def test_a_good_candidate_is_promoted_with_the_pods_that_were_tested() -> None:
    story = Story()
    stable = story.bootstrap()
    candidate = story.try_another()
    tested = {pod.name for pod in story.pods[candidate]}
    warm_up(story)

    story.measured(105)
    story.look()
    assert story.stage == "Promote"
    assert story.desired.serving_revision == stable, "users stay until the new pods are enough"

    story.look()
    assert story.stage == "Switch"
    assert {server.revision for server in story.desired.servers} == {stable, candidate}
    story.cluster_follows()
    story.look()
    assert story.stage == "Switch", "the old pods stay until proxies know"
    story.later(4)
    story.look()

    assert story.status.stable is not None
    assert story.status.stable.revision == candidate
    assert story.status.candidate is None
    assert [server.revision for server in story.desired.servers] == [candidate]
    assert {pod.name for pod in story.pods[candidate]} == tested
    assert story.condition("Promoted").status == "True"
    assert story.status.history[0].outcome is AttemptOutcome.PROMOTED


def test_a_slow_candidate_is_rolled_back_and_verified() -> None:
    story = Story()
    stable = story.bootstrap()
    candidate = story.try_another()
    warm_up(story)

    story.measured(65, slow=40)
    story.look()
    assert story.stage == "Rollback"
    assert story.candidate.reason == "GateFailed"
    assert [server.revision for server in story.desired.servers] == [stable]

    story.cluster_follows()
    story.later(1)
    story.look()
    assert story.status.candidate is None
    assert story.status.rejected is not None
    assert story.status.rejected.revision == candidate
    assert story.condition("RollbackVerified").status == "True"
    assert story.condition("Promoted").reason == "GateFailed"
    assert story.status.history[0].decision_to_done_milliseconds == 1000


def test_a_rejected_revision_is_not_tried_again_until_it_is_retried_on_purpose() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED, ready=False)
    story.look()
    story.cluster_follows()
    story.look()
    for _ in range(3):
        story.later(60)
        story.look()
        assert story.status.candidate is None

    story.commands = Commands(retry="0000000000")
    story.look()
    assert story.status.candidate is None, "a command about another revision does nothing"

    story.commands = Commands(retry=candidate)
    story.look()
    assert story.candidate.attempt == 3
    assert story.stage == "Load"


def test_other_criteria_allow_another_attempt() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED, ready=False)
    story.look()
    story.cluster_follows()
    story.look()
    assert story.status.candidate is None

    relaxed = {"name": "oom", "outOfMemory": {"maxCount": 5}}
    story.declare(steps=20, gates=[LATENCY_GATE, relaxed])
    story.look()
    assert story.candidate.revision == candidate


@pytest.mark.parametrize("stage", ["Load", "Isolated"])
def test_a_kernel_kill_for_memory_rolls_back_at_once(stage: str) -> None:
    story = Story()
    stable = story.bootstrap()
    if stage == "Load":
        story.declare(steps=20)
        story.look()
        story.cluster_follows()
        candidate = story.revision
    else:
        candidate = story.try_another()
    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED, ready=False)
    story.look()
    assert story.stage == "Rollback"
    assert story.candidate.reason == "ContainerOutOfMemory"
    assert story.desired.serving_revision == stable


def test_silence_is_never_a_success() -> None:
    story = Story(strategy={"deadlines": {"analysisSeconds": 600}})
    story.bootstrap()
    story.try_another(strategy={"deadlines": {"analysisSeconds": 600}})
    warm_up(story)
    for _ in range(100):
        story.later(5)
        story.measured(5)
        story.look()
        assert story.stage == "Isolated"
    story.later(200)
    story.measured(5)
    story.look()
    assert story.stage == "Held"
    assert story.candidate.reason == "Inconclusive"


def test_an_outage_of_prometheus_decides_nothing_and_stops_the_clock() -> None:
    short = {"deadlines": {"analysisSeconds": 60}}
    story = Story(strategy=short)
    story.bootstrap()
    candidate = story.try_another(strategy=short)
    warm_up(story)

    story.metrics = MetricsFailure("PrometheusUnreachable", "connection refused")
    for _ in range(20):
        story.later(30)
        story.look()
        assert story.stage == "Isolated"
    assert story.condition("MetricsAvailable").status == "False"
    assert "stands still" in story.condition("MetricsAvailable").message

    story.measured(20)
    story.look()
    assert story.stage == "Isolated", "the deadline stood still"
    assert story.condition("MetricsAvailable").status == "True"

    story.later(5)
    story.measured(120)
    story.look()
    assert story.stage == "Promote"
    assert story.candidate.revision == candidate


def test_a_kernel_kill_counts_while_prometheus_is_away() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.metrics = MetricsFailure("PrometheusUnreachable", "connection refused")
    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED)
    story.look()
    assert story.stage == "Rollback"


def test_a_pod_that_its_node_ended_is_replaced_and_measured_afresh() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    warm_up(story)
    story.measured(20)
    story.look()

    story.later(5)
    story.change_pod(candidate, evicted="Evicted", ready=False)
    story.look()
    assert story.stage == "Load"
    assert story.candidate.baseline is None

    story.pods[candidate] = [story.pod(candidate, index=9)]
    story.later(1)
    story.look()
    assert story.stage == "Isolated"


def test_warm_up_requests_are_not_evidence() -> None:
    story = Story()
    story.bootstrap()
    story.try_another()
    story.measured(0)
    story.look()
    story.later(2)
    story.measured(5, slow=5)
    story.look()
    story.later(2)
    story.measured(105, slow=5)
    story.look()
    assert story.stage == "Promote"


@pytest.mark.parametrize("held", [False, True])
def test_a_new_spec_in_mid_attempt_supersedes_it(*, held: bool) -> None:
    strategy = {"onFailure": "Hold"} if held else {}
    story = Story(strategy=strategy)
    stable = story.bootstrap()
    candidate = story.try_another(strategy=strategy)
    if held:
        story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED, ready=False)
        story.look()
        assert story.stage == "Held"
        assert story.desired.serving_revision == stable
        assert story.condition("Promoted").reason == "Held"
    story.declare(steps=30, strategy=strategy)
    story.look()
    assert story.stage == "Rollback"
    story.cluster_follows()
    story.look()
    assert story.status.candidate is None
    assert story.status.rejected is None, "it was not judged, so it is not rejected"
    story.look()
    assert story.candidate.revision == story.revision
    assert story.status.history[0].outcome is AttemptOutcome.SUPERSEDED


def test_back_to_the_stable_model_in_mid_attempt_ends_it() -> None:
    story = Story()
    stable = story.bootstrap()
    story.try_another()
    story.declare()
    story.look()
    story.cluster_follows()
    story.look()
    story.later(1)
    story.look()
    assert story.status.candidate is None
    assert story.condition("Promoted").status == "True"
    assert story.revision == stable


def test_abort_names_the_revision_it_is_about() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.commands = Commands(abort="0000000000")
    story.look()
    assert story.stage == "Isolated"
    story.commands = Commands(abort=candidate)
    story.look()
    assert story.stage == "Rollback"
    story.commands = Commands()
    story.cluster_follows()
    story.look()
    assert story.status.history[0].outcome is AttemptOutcome.ABORTED


def test_without_a_node_the_candidate_is_not_called_bad() -> None:
    story = Story(strategy={"deadlines": {"loadSeconds": 60}})
    story.bootstrap()
    story.declare(steps=20, strategy={"deadlines": {"loadSeconds": 60}})
    story.look()
    story.cluster_follows()
    candidate = story.revision
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    story.change_pod(candidate, ready=False, containers_ready=False, unschedulable=words)
    story.look()
    assert story.condition("Promoted").reason == "Unschedulable"
    assert words in story.condition("Promoted").message
    story.later(61)
    story.look()
    assert story.stage == "Held"
    assert story.candidate.reason == "Unschedulable"


def test_an_unknown_pool_is_refused_by_name_and_stable_is_untouched() -> None:
    story = Story()
    stable = story.bootstrap()
    story.declare(steps=20, pool="exports")
    story.look()
    accepted = story.condition("Accepted")
    assert accepted.status == "False"
    assert "`spec.pool`: 'exports'" in accepted.message
    assert "'preview'" in accepted.message
    assert story.status.candidate is None
    assert [server.revision for server in story.desired.servers] == [stable]


def test_an_idle_rollout_changes_nothing() -> None:
    story = Story()
    story.bootstrap()
    before = story.look()
    story.later(3600)
    assert story.look() == before


def test_the_stages_of_the_strategy_follow_each_other_each_on_its_own_evidence() -> None:
    stages = {"stages": [{"name": "first"}, {"name": "second"}]}
    story = Story(strategy=stages)
    story.bootstrap()
    story.try_another(strategy=stages)
    warm_up(story)
    story.measured(105)
    story.look()
    assert story.candidate.stage_name == "second"
    assert story.candidate.baseline is None
    story.later(2)
    story.measured(110)
    story.look()
    assert story.stage == "Isolated"


def test_a_rollback_that_cannot_be_verified_says_so() -> None:
    story = Story()
    story.bootstrap()
    candidate = story.try_another()
    story.change_pod(candidate, restarts=1, last_termination=OOM_KILLED)
    story.look()
    story.cluster_follows()
    story.serving_pods = frozenset()
    story.look()
    assert story.stage == "Rollback"
    story.later(61)
    story.look()
    assert story.condition("RollbackVerified").status == "False"
    story.cluster_follows()
    story.look()
    assert story.condition("RollbackVerified").status == "True"


def test_transition_times_move_only_with_the_status_of_a_condition() -> None:
    story = Story()
    story.bootstrap()
    before = story.condition("Ready")
    story.now += timedelta(hours=1)
    story.try_another()
    assert story.condition("Ready").last_transition_time == before.last_transition_time
    assert story.condition("Ready").observed_generation == 2


def test_gates_that_pass_do_not_promote_before_the_minimum_of_requests() -> None:
    analysis = {"warmupRequests": 0, "minRequests": 90, "maxRequests": 200}
    story = Story(analysis=analysis, gates=[LATENCY_GATE, MEMORY_GATE])
    story.bootstrap()
    story.try_another(analysis=analysis)
    story.measured(0)
    story.look()
    story.later(2)
    story.measured(89)
    story.look()
    assert story.stage == "Isolated"
    story.later(2)
    story.measured(90)
    story.look()
    assert story.stage == "Promote"
