"""What pods say about a candidate, told apart by reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.contract import ExitCode
from imagegen.engines.folder import check_folder
from imagegen.errors import StartupError
from modelrollout.api.conditions import format_time
from modelrollout.api.status import CandidateStatus, StageKind, TestedPod
from modelrollout.rollout.failures import find_failure
from modelrollout.rollout.lives import follow_kills, kernel_kills
from modelrollout.rollout.world import Pod, Termination

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
TESTED = TestedPod(uid="u", restarts=0)
HEALTHY = Pod(
    name="p", uid="u", created=NOW - timedelta(minutes=5), ready=True, containers_ready=True
)
LOADING = replace(HEALTHY, ready=False, containers_ready=False, created=NOW - timedelta(seconds=5))


TRIED = CandidateStatus(
    revision="r",
    attempt=1,
    stage=StageKind.ISOLATED,
    started_time=format_time(NOW),
    stage_started_time=format_time(NOW),
)


def killed(*looks: Sequence[Pod]) -> int:
    """Kills by the kernel, as known after the candidate's pods were looked at so often."""
    candidate = TRIED
    for pods in looks:
        candidate = follow_kills(candidate, pods)
    return kernel_kills(candidate.out_of_memory)


def find(pod: Pod, *, loading: bool = True, allowed: int = 0) -> tuple[str, float | None] | None:
    finding = find_failure(
        [pod],
        tested=None if loading else TESTED,
        kills=killed([pod]),
        allowed_out_of_memory=allowed,
    )
    if finding is None:
        return None
    return finding.reason.value, None if finding.grace is None else finding.grace.total_seconds()


def ended(reason: str, code: int, message: str = "", restarts: int = 0) -> Pod:
    return replace(LOADING, restarts=restarts, last_termination=Termination(reason, code, message))


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (ended("OOMKilled", 137), ("ContainerOutOfMemory", 0)),
        (ended("Error", 3, "ModelInvalid: no model_index.json"), ("ModelInvalid", 0)),
        (ended("Error", 3, "CudaOOM: warm-up"), ("GpuOutOfMemory", 0)),
        (ended("Error", 3, "HostOOM: warm-up"), ("ContainerOutOfMemory", 0)),
        (ended("Error", 3, "WarmupFailed: flat image"), ("WarmupFailed", 0)),
        (ended("Error", 1, restarts=1), None),
        (ended("Error", 1, "boom", restarts=2), ("CrashLoop", 0)),
        (replace(LOADING, waiting_reason="ErrImagePull"), ("ImagePull", 30)),
        (
            replace(
                HEALTHY, ready=False, containers_ready=False, waiting_reason="ImagePullBackOff"
            ),
            ("ImagePull", 30),
        ),
        (replace(LOADING, waiting_reason="CreateContainerConfigError"), ("ContainerConfig", 30)),
        (replace(LOADING, unschedulable="0/1 nodes"), ("Unschedulable", None)),
        (LOADING, None),
    ],
)
def test_a_loading_candidate(pod: Pod, expected: tuple[str, float | None] | None) -> None:
    assert find(pod) == expected


def test_a_server_that_finds_another_folder_than_the_pinned_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}'
    )
    (tmp_path / "scheduler").mkdir()
    with pytest.raises(StartupError) as refusal:
        check_folder(tmp_path, digest="sha256:" + 64 * "a")

    finding = find_failure(
        [ended("Error", ExitCode.STARTUP_FAILED, str(refusal.value))],
        tested=None,
        kills=0,
        allowed_out_of_memory=0,
    )

    assert finding is not None
    assert finding.reason.value == "ModelInvalid"
    assert "but --digest is sha256:aaaa" in finding.message


def test_under_trial_one_crash_is_enough() -> None:
    assert find(ended("Error", 1, restarts=1), loading=False) == ("CrashLoop", 0)


def test_a_restart_from_before_the_trial_was_dealt_with_before() -> None:
    end = Termination("Error", 1)
    recovered = replace(HEALTHY, restarts=1, last_termination=end)
    tested = TestedPod(uid="u", restarts=1)
    assert find_failure([recovered], tested=tested, kills=0, allowed_out_of_memory=0) is None


def test_readiness_may_be_lost_for_a_moment_only() -> None:
    unready = replace(HEALTHY, ready=False, containers_ready=False)
    assert find(unready, loading=False) == ("ReadinessLost", 15)


def test_a_pod_on_a_node_that_is_not_heard_of_is_not_blamed() -> None:
    assert find(replace(HEALTHY, ready=False), loading=False) is None


def test_a_pod_beside_the_tested_one_is_still_being_loaded() -> None:
    other = replace(HEALTHY, uid="other", ready=False, containers_ready=False)
    assert find(other, loading=False) is None


@pytest.mark.parametrize("change", [{"terminating": True}, {"evicted": "Evicted"}])
def test_what_a_pod_does_after_its_node_ended_it_is_no_evidence(change: dict[str, object]) -> None:
    pod = replace(ended("OOMKilled", 137), **change)  # type: ignore[arg-type]
    assert find(pod) is None


def test_kills_are_counted_up_to_what_the_gate_allows() -> None:
    twice = ended("OOMKilled", 137, restarts=2)
    assert killed([twice]) == 2
    assert find(twice, loading=False, allowed=2) is None
    assert find(twice, loading=False, allowed=1) == ("ContainerOutOfMemory", 0)


def test_the_worst_finding_over_all_pods_comes_first() -> None:
    waiting = replace(LOADING, name="a", unschedulable="0/1 nodes")
    ended_by_kernel = replace(ended("OOMKilled", 137), name="b")
    finding = find_failure(
        [waiting, ended_by_kernel], tested=None, kills=1, allowed_out_of_memory=0
    )
    assert finding is not None
    assert finding.reason.value == "ContainerOutOfMemory"


# -- kills from look to look -----------------------------------------------------------------------
KILL = Termination("OOMKilled", 137)
AT_NODE = Termination("Unknown", 255)


def test_kills_are_not_forgotten_when_the_next_end_is_another() -> None:
    once = replace(HEALTHY, restarts=1, last_termination=KILL)
    assert killed([once], [replace(once, restarts=2, last_termination=AT_NODE)]) == 1


def test_an_end_of_another_kind_is_no_kill_after_a_kill() -> None:
    first = replace(HEALTHY, restarts=1, last_termination=AT_NODE)
    assert killed([first], [replace(first, restarts=2, last_termination=KILL)]) == 1


def test_a_kill_counts_once_however_often_and_when_it_is_seen() -> None:
    ending = replace(LOADING, last_termination=KILL)
    restarted = replace(LOADING, restarts=1, last_termination=KILL)
    assert killed([ending], [ending], [restarted], [restarted]) == 1


def test_kills_of_a_pod_that_is_gone_are_kept() -> None:
    once = replace(HEALTHY, restarts=1, last_termination=KILL)
    other = replace(HEALTHY, uid="other", restarts=2, last_termination=KILL)
    assert killed([once], [HEALTHY], []) == 1
    assert killed([once], [other], [replace(other, terminating=True)], []) == 3


@given(st.lists(st.sampled_from([KILL, AT_NODE]), max_size=12), st.integers(0, 3))
def test_kills_are_as_many_as_there_were(ends: list[Termination], pods: int) -> None:
    looks = []
    for uid in range(pods):
        for restarts, end in enumerate(ends, start=1):
            looks.append([replace(HEALTHY, uid=str(uid), restarts=restarts, last_termination=end)])
    assert killed(*looks) == pods * ends.count(KILL)
