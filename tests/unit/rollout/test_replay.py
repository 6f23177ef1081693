"""Laws of the measured stage: same evidence, same verdict, whoever looks and however often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen import contract
from modelrollout.evidence.collector import Sample, collect
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES
from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.inputs import MetricsFailure
from modelrollout.rollout.world import Pod
from tests.unit.evidence.answering import LARGE, PLAIN, log_values, server_values
from tests.unit.rollout.story import PROBE, Story

GATES = [
    {"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 500}},
    {"name": "errors", "errors": {"maxPercent": "5"}},
    {"name": "oom", "outOfMemory": {"maxCount": 0}},
]
RELATIVE = {"name": "vs-stable", "latency": {"maxIncreasePercent": 10}}
STABLE_TROUBLES = ("absent", "doubled", "restarted", "replaced", "backwards")
GAPS = ("absent", "doubled")
OTHER_TROUBLES = ("no-candidate", "no-probe", "no-prometheus", "probe-anew")


@dataclass(frozen=True)
class Step:
    """What happens until the next look, and what is wrong at it."""

    served: int = 0
    slow: int = 0
    failed: int = 0
    stable: int = 0
    stable_failed: int = 0
    trouble: str = ""
    seconds: float = 0.1


def steps(troubles: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        Step,
        served=st.integers(0, 25),
        slow=st.integers(0, 3),
        failed=st.sampled_from([0, 0, 0, 1]),
        stable=st.integers(0, 25),
        stable_failed=st.sampled_from([0, 0, 1, 5]),
        trouble=st.sampled_from(["", "", *troubles]),
        seconds=st.sampled_from([0.08, 0.1, 0.12, 0.2]),
    )
    return st.lists(step, max_size=8)


class Trial:
    """A candidate under measurement, played step by step until it is decided."""

    def __init__(self, gates: Sequence[Any] = GATES, *, forgetful: bool = False) -> None:
        self.story = Story(gates=list(gates))
        self.story.bootstrap()
        self.story.try_another(gates=list(gates))
        self.story.forgetful = forgetful
        self.seconds: list[float] = []
        self.served = self.slow = self.failed = self.stable = self.stable_failed = 0
        for requests in (0, 5):
            self.play(Step(served=requests, stable=requests))

    @property
    def over(self) -> bool:
        return self.story.stage != "Isolated"

    def play(self, step: Step) -> None:
        if self.over:
            return
        self.happen(step)
        self.story.look()

    def happen(self, step: Step) -> None:
        """Let it happen, without a look at it."""
        self.story.later(2)
        self.served += step.served
        self.seconds += [step.seconds] * step.served
        self.slow += min(step.slow, step.served)
        self.failed += step.failed
        self.stable += step.stable
        self.stable_failed += step.stable_failed
        self._befall(step.trouble)

    def _befall(self, trouble: str) -> None:
        story = self.story
        stable = story.status.stable
        assert stable is not None
        (pod,) = story.stable_pods
        if trouble in {"restarted", "backwards", "replaced"}:
            self.stable = self.stable_failed = 0
        if trouble == "restarted":
            story.change_pod(stable.revision, restarts=pod.restarts + 1)
        if trouble == "replaced":
            story.pods[stable.revision] = [story.pod(stable.revision)]
        story.loading = trouble != "probe-anew"
        story.measured(
            self.served,
            slow=self.slow,
            failed=self.failed,
            seconds=self.seconds or [0.1],
            stable=[self.stable],
            stable_failed=self.stable_failed,
        )
        self._hide(trouble, pod)

    def _hide(self, trouble: str, stable: Pod) -> None:
        story = self.story
        if trouble in GAPS:
            story.hide(stable.name, "scraped twice" if trouble == "doubled" else "")
        if trouble == "no-candidate":
            story.hide(story.pods[story.candidate.revision][0].name)
        if trouble == "no-probe":
            assert isinstance(story.metrics, Snapshot)
            story.metrics = replace(story.metrics, probes={})
        if trouble == "no-prometheus":
            story.metrics = MetricsFailure("PrometheusUnreachable", "connection refused")


@given(steps([*STABLE_TROUBLES, *OTHER_TROUBLES]))
def test_an_operator_that_knows_the_record_only_decides_as_one_that_was_never_ended(
    script: list[Step],
) -> None:
    gates = [*GATES, RELATIVE]
    steady, forgetful = Trial(gates), Trial(gates, forgetful=True)
    for step in script:
        steady.play(step)
        forgetful.play(step)
        assert forgetful.story.status == steady.story.status
        if not steady.over and isinstance(steady.story.metrics, Snapshot):
            assert forgetful.story.evidence() == steady.story.evidence()


@given(steps([*STABLE_TROUBLES, *OTHER_TROUBLES]))
def test_a_look_that_is_repeated_changes_nothing(script: list[Step]) -> None:
    once, often = Trial([*GATES, RELATIVE]), Trial([*GATES, RELATIVE])
    for step in script:
        once.play(step)
        often.play(step)
        if not often.over:
            often.story.look()
        assert often.story.status == once.story.status


def verdicts(trial: Trial, verdict: str) -> set[str]:
    """Gates that have this verdict."""
    return {gate.name for gate in trial.story.status.gates if gate.verdict == verdict}


@given(steps(STABLE_TROUBLES))
def test_what_befalls_stable_neither_hurts_nor_helps_on_the_candidates_own_gates(
    script: list[Step],
) -> None:
    troubled, untroubled = Trial(), Trial()
    for step in script:
        troubled.play(step)
        untroubled.play(replace(step, trouble=""))
        assert verdicts(troubled, "Pass") == verdicts(untroubled, "Pass")
        if step.trouble:
            # A bad stable would excuse the candidate, and now nothing is known of it.
            assert verdicts(troubled, "Fail") == set()
        assert troubled.story.candidate.requests == untroubled.story.candidate.requests
        if troubled.over or untroubled.over:
            return


@given(steps(()), st.integers(0, 7), st.integers(0, 7))
def test_looks_that_are_missed_promote_nobody_who_is_undecided(
    script: list[Step], began: int, lasted: int
) -> None:
    present, away = Trial([*GATES, RELATIVE]), Trial([*GATES, RELATIVE])
    for at, step in enumerate([*script, Step(served=1, stable=1)]):
        present.play(step)
        if began <= at < began + lasted and at < len(script):
            away.happen(step)
        else:
            away.play(step)
        if present.over or away.over:
            break
    assert present.over or away.story.stage != "Promote"


@pytest.mark.parametrize("slow", [3, 9])
def test_an_absence_of_two_hundred_requests_passes_nobody_who_is_undecided(slow: int) -> None:
    # Given a candidate that is neither proved good nor bad, slow in short or long bursts
    present, away = Trial([*GATES, RELATIVE]), Trial([*GATES, RELATIVE])
    for turn in range(19):
        step = Step(served=10, stable=10, slow=slow if turn in {4, 5} else 0, seconds=0.104)
        present.play(step)
        away.happen(step)
    assert not present.over
    away.story.look()
    assert present.story.status.verdict == "Inconclusive"
    assert away.story.status.verdict != "Pass"
    assert away.story.stage != "Promote"


@given(steps(GAPS))
def test_gaps_in_the_series_of_stable_lose_nothing(script: list[Step]) -> None:
    gaps, whole = Trial(), Trial()
    for step in script:
        gaps.play(step)
        whole.play(replace(step, trouble=""))
        if gaps.over or whole.over:
            return
        comparison = gaps.story.evidence().comparison
        assert comparison == (None if step.trouble else whole.story.evidence().comparison)


@given(steps([*STABLE_TROUBLES, *OTHER_TROUBLES]))
def test_both_arms_are_of_one_moment_and_of_the_same_time_long(script: list[Step]) -> None:
    trial = Trial()
    for step in script:
        trial.play(step)
        if trial.over:
            return
        record = trial.story.candidate.comparison
        assert record is not None
        begun = {item.time for item in record.stable}
        assert begun == ({record.candidate.time} if record.candidate else set())
        if isinstance(trial.story.metrics, Snapshot):
            comparison = trial.story.evidence().comparison
            if comparison is not None:
                assert comparison.candidate.time == comparison.stable.time == trial.story.now


def verdict_beside_stable(story: Story) -> str:
    return next(gate.verdict for gate in story.status.gates if gate.name == RELATIVE["name"])


@given(steps([*STABLE_TROUBLES, *OTHER_TROUBLES]))
def test_without_a_comparison_a_candidate_is_neither_good_nor_bad_beside_stable(
    script: list[Step],
) -> None:
    trial = Trial([*GATES, RELATIVE])
    for step in script:
        trial.play(step)
        if trial.over or not isinstance(trial.story.metrics, Snapshot):
            continue
        if trial.story.evidence().comparison is None:
            assert verdict_beside_stable(trial.story) in {"Invalid", "Inconclusive"}


@pytest.mark.parametrize(
    ("seconds", "ending"), [(0.1, "Promote"), (0.2, "Rollback"), (0.05, "Promote")]
)
@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("trouble", ["", "absent", "restarted"])
def test_a_candidate_is_judged_beside_stable_in_spite_of_troubles(
    seconds: float, ending: str, trouble: str, *, forgetful: bool
) -> None:
    trial = Trial([*GATES, RELATIVE], forgetful=forgetful)
    trial.play(Step(served=10, stable=10, seconds=seconds))
    trial.play(Step(served=10, stable=10, seconds=seconds, trouble=trouble))
    assert not trial.over
    for _ in range(15):
        trial.play(Step(served=10, stable=10, seconds=seconds))
    assert trial.story.stage == ending


# -- the order of series ---------------------------------------------------------------------------
def series(story: Story, requests: int) -> dict[str, list[Sample]]:
    """What Prometheus answers when every pod served so many requests, of two classes."""
    durations = {PLAIN: [1.0 + 0.1 * at for at in range(requests)], LARGE: [4.1] * requests}
    values = server_values(2 * requests) | log_values(durations)
    answers: dict[str, list[Sample]] = {
        family.name: [] for family in (*SERVER_FAMILIES, *PROBE_FAMILIES)
    }
    for pod in (*story.stable_pods, *story.pods[story.candidate.revision]):
        for name, rows in values.items():
            labels = {"namespace": "team", "pod": pod.name}
            answers[name] += [Sample({**labels, **own}, float(value)) for own, value in rows]
    probe = {"namespace": "team", "pod": PROBE.name}
    for family, value in zip(PROBE_FAMILIES, (8, 0.001, 1, 0, 0), strict=True):
        arms = contract.ARMS if family.dimension else ("",)
        answers[family.name] = [Sample({**probe, "arm": arm}, float(value)) for arm in arms]
    return answers


@given(st.randoms(use_true_random=False))
def test_the_order_of_series_within_a_scrape_changes_nothing(chance: Random) -> None:
    gate = {"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 1700}}
    stories = [Story(gates=[gate], replicas=3) for _ in range(2)]
    for story in stories:
        story.bootstrap()
        story.try_another(gates=[gate], replicas=3)
    for requests in (0, 5, 9, 14):
        for story, mixed in zip(stories, (False, True), strict=True):
            answers = series(story, requests)
            if mixed:
                for each in answers.values():
                    chance.shuffle(each)
            story.metrics = collect(story.now, answers)
            story.look()
            story.later(2)
    straight, mixed_up = (json.dumps(story.status.to_api()) for story in stories)
    assert mixed_up == straight
    assert stories[0].evidence().comparison is not None
    assert stories[1].evidence() == stories[0].evidence()
