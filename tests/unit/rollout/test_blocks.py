"""Requests that come together: what is kept of them from look to look."""

from __future__ import annotations

from modelrollout.gates.blocks import LOG_SECONDS, latency_key
from tests.unit.rollout.story import Story, warm_up

GATES = [{"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 500}}]


def measuring(*, forgetful: bool = False) -> Story:
    story = Story(gates=GATES)
    story.bootstrap()
    story.try_another(gates=GATES)
    story.forgetful = forgetful
    warm_up(story)
    return story


def look(story: Story, requests: int, *, slow: int = 0) -> None:
    story.later(2)
    story.measured(requests, slow=slow)
    story.look()


def test_slow_requests_that_come_together_say_less() -> None:
    spread, burst = measuring(), measuring(forgetful=True)
    for block in range(1, 6):
        look(spread, 5 + 10 * block, slow=block)
        look(burst, 5 + 10 * block, slow=5 if block >= 3 else 0)
    assert spread.evidence().design_effects[latency_key(500)] == 1
    assert burst.evidence().design_effects[latency_key(500)] > 3


def test_blocks_begin_anew_with_the_evidence() -> None:
    story = measuring()
    for block in range(1, 6):
        look(story, 5 + 10 * block, slow=5 if block >= 3 else 0)
    # When the counters of the candidate began anew, and the warm-up is over again
    look(story, 0)
    assert story.candidate.blocks is None
    look(story, 5)
    look(story, 25)
    assert story.evidence().design_effects[latency_key(500)] == 1


RISING = [0.1] * 15 + [0.12] * 10 + [0.15] * 10 + [0.2] * 10


def drifting(story: Story, *, gap: bool) -> float:
    """Let the candidate's times rise from block to block, and return what that says."""
    for requests in (15, 25, 35, 45):
        story.later(2)
        story.measured(requests, seconds=RISING)
        story.look()
        if gap:
            story.hide(story.stable_pods[0].name)
            story.look()
            assert story.evidence().comparison is None
    story.measured(45, seconds=RISING)
    return story.evidence().design_effects[LOG_SECONDS]


def test_a_gap_in_the_series_of_stable_takes_no_block_away() -> None:
    assert drifting(measuring(), gap=True) == drifting(measuring(), gap=False) > 1


def test_a_comparison_that_begins_anew_has_no_blocks_of_the_one_before() -> None:
    story = measuring()
    assert drifting(story, gap=False) > 1
    stable = story.status.stable
    assert stable is not None
    story.change_pod(stable.revision, restarts=1)
    story.later(2)
    story.measured(50, seconds=RISING)
    story.look()
    assert story.evidence().design_effects[LOG_SECONDS] == 1
    assert story.candidate.blocks is not None
    assert LOG_SECONDS not in {item.key for item in story.candidate.blocks.dispersions}
