"""What pods say about a candidate, told apart by reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelrollout.rollout.failures import container_out_of_memory_count, find_failure
from modelrollout.rollout.world import Pod, Termination

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
HEALTHY = Pod(name="p", uid="u", created=NOW - timedelta(minutes=5), ready=True, ready_changed=NOW)
LOADING = replace(HEALTHY, ready=False, ready_changed=None, created=NOW - timedelta(seconds=5))


def find(pod: Pod, *, loading: bool = True, allowed: int = 0) -> tuple[str, bool] | None:
    finding = find_failure([pod], loading=loading, allowed_out_of_memory=allowed, now=NOW)
    return None if finding is None else (finding.reason.value, finding.decides)


def ended(reason: str, code: int, message: str = "", restarts: int = 0) -> Pod:
    return replace(LOADING, restarts=restarts, last_termination=Termination(reason, code, message))


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (ended("OOMKilled", 137), ("ContainerOutOfMemory", True)),
        (ended("Error", 3, "ModelInvalid: no model_index.json"), ("ModelInvalid", True)),
        (ended("Error", 3, "CudaOOM: warm-up"), ("GpuOutOfMemory", True)),
        (ended("Error", 3, "HostOOM: warm-up"), ("ContainerOutOfMemory", True)),
        (ended("Error", 3, "WarmupFailed: flat image"), ("WarmupFailed", True)),
        (ended("Error", 1, restarts=1), None),
        (ended("Error", 1, "boom", restarts=2), ("CrashLoop", True)),
        (replace(LOADING, waiting_reason="ErrImagePull"), ("ImagePull", False)),
        (
            replace(HEALTHY, ready=False, ready_changed=None, waiting_reason="ImagePullBackOff"),
            ("ImagePull", True),
        ),
        (replace(LOADING, waiting_reason="CreateContainerConfigError"), ("ContainerConfig", False)),
        (replace(LOADING, unschedulable="0/1 nodes"), ("Unschedulable", False)),
        (LOADING, None),
    ],
)
def test_a_loading_candidate(pod: Pod, expected: tuple[str, bool] | None) -> None:
    assert find(pod) == expected


def test_under_trial_one_crash_is_enough() -> None:
    assert find(ended("Error", 1, restarts=1), loading=False) == ("CrashLoop", True)


def test_readiness_may_be_lost_for_a_moment_only() -> None:
    unready = replace(HEALTHY, ready=False)
    assert find(unready, loading=False) == ("ReadinessLost", False)
    long = replace(unready, ready_changed=NOW - timedelta(seconds=15))
    assert find(long, loading=False) == ("ReadinessLost", True)


@pytest.mark.parametrize("change", [{"terminating": True}, {"evicted": "Evicted"}])
def test_what_a_pod_does_after_its_node_ended_it_is_no_evidence(change: dict[str, object]) -> None:
    pod = replace(ended("OOMKilled", 137), **change)  # type: ignore[arg-type]
    assert find(pod) is None


def test_kills_are_counted_up_to_what_the_gate_allows() -> None:
    twice = ended("OOMKilled", 137, restarts=2)
    assert container_out_of_memory_count([twice]) == 2
    assert find(twice, loading=False, allowed=2) is None
    assert find(twice, loading=False, allowed=1) == ("ContainerOutOfMemory", True)


def test_the_worst_finding_over_all_pods_comes_first() -> None:
    waiting = replace(LOADING, name="a", unschedulable="0/1 nodes")
    killed = replace(ended("OOMKilled", 137), name="b")
    finding = find_failure([waiting, killed], loading=True, allowed_out_of_memory=0, now=NOW)
    assert finding is not None
    assert finding.reason.value == "ContainerOutOfMemory"
