"""What a pod's own status says about the candidate, told apart by reason.

A chain of small pure functions; the first that finds something wins. Each finding says whether it
decides at once, or only explains why the candidate is not ready yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from imagegen.contract import StartupFailureCode
from modelrollout.api.conditions import Reason
from modelrollout.api.gate_types import Gate, GateMode
from modelrollout.api.status import TestedPod
from modelrollout.rollout.world import Pod

__all__ = [
    "IMAGE_PULL_GRACE",
    "READINESS_GRACE",
    "Finding",
    "allowed_out_of_memory",
    "find_failure",
]

IMAGE_PULL_GRACE = timedelta(seconds=30)
"""How long an image may fail to arrive: a registry that is away for a moment is not the model."""

READINESS_GRACE = timedelta(seconds=15)
"""How long a candidate under measurement may be unready before that counts against it."""

_AT_ONCE = timedelta()

CRASH_LOOP_RESTARTS = 2
"""Restarts while loading that make a crash loop; one may be bad luck, such as a lost volume."""

_DECLARED = {
    StartupFailureCode.MODEL_INVALID: Reason.MODEL_INVALID,
    StartupFailureCode.CUDA_OOM: Reason.GPU_OUT_OF_MEMORY,
    StartupFailureCode.HOST_OOM: Reason.CONTAINER_OUT_OF_MEMORY,
    StartupFailureCode.WARMUP_FAILED: Reason.WARMUP_FAILED,
}
"""Why a server says that it could not start, as the first word of its termination message."""

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_CONFIG_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a candidate's pods."""

    reason: Reason
    message: str
    grace: timedelta | None
    """How long it must last before it counts against the candidate: zero for what decides at once,
    ``None`` for what only explains why the candidate is not ready."""


def allowed_out_of_memory(gates: Sequence[Gate]) -> int:
    """Return the container kills that an enforced gate tolerates; without such a gate none."""
    limits = [
        gate.out_of_memory.max_count
        for gate in gates
        if gate.out_of_memory is not None and gate.mode is GateMode.ENFORCE
    ]
    return min(limits, default=0)


def find_failure(
    pods: Sequence[Pod],
    *,
    tested: TestedPod | None,
    kills: int,
    allowed_out_of_memory: int,
) -> Finding | None:
    """Return the first finding over a candidate's pods, the worst kind first.

    Parameters
    ----------
    pods
        The candidate's pods.
    tested
        The pod under trial as it was when that began; ``None`` while the candidate is loading.
    kills
        Times the kernel killed a container of the candidate since the attempt began
        (`modelrollout.rollout.lives.kernel_kills`).
    allowed_out_of_memory
        Container kills that the spec's outOfMemory gate tolerates.
    """
    checks: tuple[Callable[[Pod], Finding | None], ...] = (
        lambda pod: _out_of_memory(pod, kills, allowed_out_of_memory),
        _declared_failure,
        lambda pod: _crash_loop(pod) if tested is None else _crashed(pod, tested),
        _image_pull,
        _container_config,
        lambda pod: None if tested is None else _readiness_lost(pod, tested),
        _unschedulable,
    )
    # A pod on its way out was ended by us or by its node: what it does last is no evidence.
    alive = [pod for pod in pods if not pod.terminating and not pod.evicted]
    for check in checks:
        for pod in alive:
            finding = check(pod)
            if finding is not None:
                return finding
    return None


def _out_of_memory(pod: Pod, kills: int, allowed: int) -> Finding | None:
    killed = pod.last_termination is not None and pod.last_termination.reason == "OOMKilled"
    if not killed or kills <= allowed:
        return None
    return Finding(
        Reason.CONTAINER_OUT_OF_MEMORY,
        f"the kernel killed the container of pod {pod.name} for exceeding its memory limit "
        f"(OOMKilled, {kills} time{'s' if kills > 1 else ''}; {allowed} allowed)",
        grace=_AT_ONCE,
    )


def _declared_failure(pod: Pod) -> Finding | None:
    """Find a server that ended itself and said why in its termination message."""
    end = pod.last_termination
    if end is None or end.exit_code == 0:
        return None
    for code, reason in _DECLARED.items():
        if end.message.startswith(code):
            detail = end.message.removeprefix(code).lstrip(": ").strip()
            return Finding(reason, f"pod {pod.name}: {detail}", grace=_AT_ONCE)
    return None


def _crash_loop(pod: Pod) -> Finding | None:
    if pod.restarts < CRASH_LOOP_RESTARTS:
        return None
    return _crash(pod)


def _crashed(pod: Pod, tested: TestedPod) -> Finding | None:
    """Find a crash under trial, where one is enough."""
    before = tested.restarts if pod.uid == tested.uid else 0
    return _crash(pod) if pod.restarts > before else None


def _crash(pod: Pod) -> Finding | None:
    end = pod.last_termination
    # A kill for memory is counted by its own finding, and here within what the spec tolerates. A
    # container whose end the kubelet does not know went down with its node.
    if end is None or end.reason in {"OOMKilled", "Unknown", "ContainerStatusUnknown"}:
        return None
    return Finding(
        Reason.CRASH_LOOP,
        f"the container of pod {pod.name} ended with exit code {end.exit_code} ({end.reason}) and "
        f"was restarted {pod.restarts} time{'s' if pod.restarts != 1 else ''}"
        + (f": {end.message.strip()[:300]}" if end.message else ""),
        grace=_AT_ONCE,
    )


def _image_pull(pod: Pod) -> Finding | None:
    if pod.waiting_reason not in _IMAGE_REASONS:
        return None
    return Finding(
        Reason.IMAGE_PULL,
        f"pod {pod.name} cannot get its image ({pod.waiting_reason}): {pod.waiting_message}",
        grace=IMAGE_PULL_GRACE,
    )


def _container_config(pod: Pod) -> Finding | None:
    if pod.waiting_reason not in _CONFIG_REASONS:
        return None
    return Finding(
        Reason.CONTAINER_CONFIG,
        f"pod {pod.name} cannot start ({pod.waiting_reason}): {pod.waiting_message}",
        grace=IMAGE_PULL_GRACE,
    )


def _readiness_lost(pod: Pod, tested: TestedPod) -> Finding | None:
    # Other pods are still being loaded. One whose containers are ready is on a node that is not
    # heard of, which is not the model's doing.
    if pod.uid != tested.uid or pod.ready or pod.containers_ready:
        return None
    if pod.restarts > tested.restarts:
        # After a kill for memory that the spec tolerates, the model is loaded again.
        return None
    return Finding(
        Reason.READINESS_LOST,
        f"pod {pod.name} was ready and is not any more, while under trial",
        grace=READINESS_GRACE,
    )


def _unschedulable(pod: Pod) -> Finding | None:
    if not pod.unschedulable:
        return None
    return Finding(
        Reason.UNSCHEDULABLE,
        f"pod {pod.name} waits for a node; the scheduler says: {pod.unschedulable}",
        grace=None,
    )
