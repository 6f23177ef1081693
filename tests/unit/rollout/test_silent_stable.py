"""A common cause while stable is silent, or has not the edges that the candidate has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from modelrollout.gates.common_cause import ENOUGH_AT_STABLE
from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.comparison import LONGEST_SILENCE
from tests.unit.rollout.story import Story, warm_up
from tests.unit.rollout.trials import trial


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
