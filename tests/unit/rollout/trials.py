"""Trials that compare a candidate with stable."""

from __future__ import annotations

from tests.unit.rollout.story import Story, warm_up

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
