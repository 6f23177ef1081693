"""The observed world of one rollout, as plain facts without any client's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["Pod", "RevisionState", "Termination", "World"]


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended, in the kubelet's words."""

    reason: str
    exit_code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A server pod, or a probe's."""

    name: str
    uid: str
    created: datetime
    ready: bool = False
    containers_ready: bool = False
    """What the kubelet says of the containers. A pod that is not ready although its containers are
    is on a node that is not heard of."""

    terminating: bool = False
    evicted: str = ""
    """The node's reason for ending the pod (Evicted, Preempted, NodeShutdown ...), else empty."""

    unschedulable: str = ""
    """The scheduler's words while the pod finds no node, else empty."""

    waiting_reason: str = ""
    waiting_message: str = ""
    restarts: int = 0
    last_termination: Termination | None = None


@dataclass(frozen=True, slots=True)
class RevisionState:
    """What exists in the cluster of one revision."""

    replicas: int | None
    """Replicas asked of the Deployment; ``None`` when there is no Deployment."""

    pods: tuple[Pod, ...] = ()
    create_error: str = ""
    """Why the Deployment cannot create its pods (a quota, an admission policy), else empty."""

    @property
    def ready_pods(self) -> tuple[Pod, ...]:
        """Pods that can serve and are not on their way out."""
        return tuple(pod for pod in self.pods if pod.ready and not pod.terminating)


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What exists of the probe."""

    pods: tuple[Pod, ...] = ()
    failed: str = ""
    """Why its Job gave up, else empty."""


_NOTHING = RevisionState(replicas=None)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that exists of one rollout."""

    revisions: Mapping[str, RevisionState] = field(default_factory=dict)
    serving_revision: str | None = None
    """The revision that the stable Service selects."""

    serving_pods: frozenset[str] = frozenset()
    """Names of the ready pods behind the stable Service, as its EndpointSlices say."""

    probe: ProbeState = field(default_factory=ProbeState)

    name_taken: str = ""
    """The Service of somebody else that has the name this rollout needs, else empty."""

    def revision(self, name: str) -> RevisionState:
        """Return the state of a revision; one that does not exist has no Deployment and no pods."""
        return self.revisions.get(name, _NOTHING)
