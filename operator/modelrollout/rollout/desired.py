"""The world as it should be, given what was decided: a pure function of spec and status.

Whatever exists beside it and carries the rollout's labels is removed. So an operator that was
killed after any write finishes the work, and never repeats a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api.revision import RevisionContent
from modelrollout.api.spec import Spec
from modelrollout.api.status import CandidateStatus, StageKind, Status
from modelrollout.gates.judge import latency_edges

__all__ = ["Desired", "ProbeRun", "Server", "desired_world"]


@dataclass(frozen=True, slots=True)
class Server:
    """The server pods of one revision."""

    revision: str
    replicas: int
    content: RevisionContent | None
    """What the pods are made of. ``None`` for a revision that exists already and must not be
    touched beyond its replicas: changing the template would load the model again."""

    latency_edges: tuple[int, ...] = ()
    """Latency limits in milliseconds that must be bucket edges of the server's histogram."""


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """Synthetic load on the candidate, and on stable for comparison."""

    candidate: str
    stable: str | None
    name: str
    """Names this run among all of the rollout: another stage, or a stage begun anew, is another."""

    suite: str
    requests_per_minute: int
    deadline_seconds: int
    """How long the stage may take."""


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that should exist of one rollout."""

    servers: tuple[Server, ...]
    serving_revision: str | None
    """The revision that users reach; ``None`` leaves the stable Service without pods."""

    probe: ProbeRun | None = None


def desired_world(spec: Spec, status: Status) -> Desired:
    """Return the world that follows from what was decided."""
    candidate = status.candidate
    servers: list[Server] = []
    if status.stable is not None:
        servers.append(Server(status.stable.revision, spec.replicas, content=None))
    if candidate is not None and candidate.stage is not StageKind.ROLLBACK:
        servers.append(
            Server(
                candidate.revision,
                _candidate_replicas(spec, candidate),
                # From here on the tested pods are to become the promoted ones, as they are.
                content=None if _is_promoting(candidate) else RevisionContent.of(spec),
                latency_edges=tuple(latency_edges(spec.gates)),
            )
        )
    return Desired(
        servers=tuple(servers),
        serving_revision=_serving_revision(status),
        probe=_probe(spec, status),
    )


def _candidate_replicas(spec: Spec, candidate: CandidateStatus) -> int:
    return spec.replicas if _is_promoting(candidate) else 1


def _is_promoting(candidate: CandidateStatus) -> bool:
    return candidate.stage in {StageKind.PROMOTE, StageKind.SWITCH}


def _serving_revision(status: Status) -> str | None:
    if status.candidate is not None and status.candidate.stage is StageKind.SWITCH:
        return status.candidate.revision
    return status.stable.revision if status.stable is not None else None


def _probe(spec: Spec, status: Status) -> ProbeRun | None:
    candidate = status.candidate
    if candidate is None or candidate.stage is not StageKind.ISOLATED:
        return None
    stage = next(item for item in spec.strategy.stages if item.name == candidate.stage_name)
    return ProbeRun(
        candidate=candidate.revision,
        stable=status.stable.revision if status.stable is not None else None,
        name=f"{candidate.attempt}-{stage.name}-{candidate.stage_started_time}",
        suite=stage.probe.suite,
        requests_per_minute=stage.probe.requests_per_minute,
        deadline_seconds=spec.strategy.deadlines.analysis_seconds,
    )
