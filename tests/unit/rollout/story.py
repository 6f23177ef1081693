"""A rollout told step by step: the test plays the cluster, Prometheus and the clock."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from modelrollout.api.revision import RevisionContent, revision_hash
from modelrollout.api.spec import Spec
from modelrollout.api.status import CandidateStatus, Condition, Status
from modelrollout.gates.evidence import Evidence, ProbeTotals, Snapshot
from modelrollout.gates.totals import LogMoments, Totals
from modelrollout.rollout.advance import advance
from modelrollout.rollout.desired import Desired, desired_world
from modelrollout.rollout.evidence import gather
from modelrollout.rollout.inputs import Catalogue, Commands, Inputs, MetricsFailure
from modelrollout.rollout.world import Pod, ProbeState, RevisionState, Termination, World

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

OOM_KILLED = Termination("OOMKilled", 137)
PROBE = Pod(name="images-probe", uid="probe", created=START, ready=True)

LATENCY_GATE = {"name": "latency", "latency": {"percentile": 90, "maxMilliseconds": 500}}
MEMORY_GATE = {"name": "oom", "outOfMemory": {"maxCount": 0}}


def spec_document(**changes: Any) -> dict[str, Any]:
    """A spec as a user would write it; `steps` is a short cut to another model."""
    document: dict[str, Any] = {
        "pool": "preview",
        "model": {
            "source": {"persistentVolumeClaim": {"claimName": "models", "path": "sd"}},
            "pipeline": {
                "scheduler": "DDIM",
                "steps": changes.pop("steps", 10),
                "guidanceScale": "5",
                "width": 64,
                "height": 64,
            },
            "limits": {"maxSteps": 100, "maxPixels": 65536},
        },
        "analysis": {"warmupRequests": 5, "minRequests": 30, "maxRequests": 200},
        "gates": [LATENCY_GATE, MEMORY_GATE],
    }
    document.update(changes)
    return document


def revision_of(document: dict[str, Any]) -> str:
    return revision_hash(RevisionContent.of(Spec.model_validate(document)))


PLAIN = "size_default.steps_default.images_one"
SPREAD = 0.1
"""Deviation of the logarithm of latency."""


def counters(
    pod: str,
    time: datetime,
    requests: int,
    *,
    slow: int = 0,
    failed: int = 0,
    seconds: Sequence[float] = (0.1,),
    out_of_memory: int = 0,
) -> Totals:
    """Counters of a pod that served so many requests of one image.

    The first took as long as the first of `seconds`, and so on; all that follow as the last.
    """
    moments = LogMoments()
    for at in range(requests):
        mean = math.log(1000 * seconds[min(at, len(seconds) - 1)])
        moments += LogMoments(1, mean, mean**2 + SPREAD**2)
    return Totals(
        pod=pod,
        time=time,
        succeeded=requests,
        failed=failed,
        images=requests,
        measured=requests,
        gpu_seconds=0.1 * requests,
        gpu_seconds_squares=0.0101 * requests,
        busy_seconds=0.1 * requests,
        timed=requests,
        within={500: requests - slow},
        out_of_memory=out_of_memory,
        log_moments={PLAIN: moments} if requests else {},
    )


class Story:
    """Plays a whole rollout; each `look` is one reconcile."""

    def __init__(self, **changes: Any) -> None:
        self.document = spec_document(**changes)
        self.status = Status()
        self.now = START
        self.generation = 1
        self.pods: dict[str, list[Pod]] = {}
        self.replicas: dict[str, int] = {}
        self.serving_revision: str | None = None
        self.serving_pods: frozenset[str] = frozenset()
        self.metrics: Snapshot | MetricsFailure | None = None
        self.commands = Commands()
        self.loading = True
        self.repeat_prompts = 8
        self.scrape_interval = timedelta()
        self.forgetful = False
        """Whether the operator is another process at each look, which knows the record only."""

        self.probe_failed = ""
        self.name_taken = ""

    @property
    def spec(self) -> Spec:
        return Spec.model_validate(self.document)

    @property
    def revision(self) -> str:
        return revision_of(self.document)

    @property
    def candidate(self) -> CandidateStatus:
        assert self.status.candidate is not None
        return self.status.candidate

    @property
    def stage(self) -> str:
        return str(self.candidate.stage)

    @property
    def desired(self) -> Desired:
        return desired_world(self.spec, self.status)

    def condition(self, kind: str) -> Condition:
        return next(item for item in self.status.conditions if item.type == kind)

    def declare(self, **changes: Any) -> None:
        self.document = spec_document(**changes)
        self.generation += 1

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def look(self) -> Status:
        if self.forgetful:
            self.status = Status.model_validate(json.loads(json.dumps(self.status.to_api())))
        self.status = advance(self.inputs())
        return self.status

    def evidence(self) -> Evidence:
        """What the candidate is judged on now."""
        assert isinstance(self.metrics, Snapshot)
        return gather(self.inputs(), self.status, self.metrics)[1]

    def inputs(self) -> Inputs:
        return Inputs(
            namespace="team",
            name="images",
            generation=self.generation,
            spec=self.spec,
            status=self.status,
            world=self.world(),
            metrics=self.metrics,
            catalogue=Catalogue({"preview": Decimal(3)}, frozenset({"default"})),
            now=self.now,
            scrape_interval=self.scrape_interval,
            commands=self.commands,
        )

    def world(self) -> World:
        names = {*self.pods, *self.replicas}
        return World(
            revisions={
                name: RevisionState(self.replicas.get(name), tuple(self.pods.get(name, ())))
                for name in names
            },
            serving_revision=self.serving_revision,
            serving_pods=self.serving_pods,
            probe=ProbeState(pods=(PROBE,), failed=self.probe_failed),
            name_taken=self.name_taken,
        )

    def cluster_follows(self) -> None:
        """The controllers do what the operator wants: Deployments, pods, endpoints."""
        wanted = {server.revision: server.replicas for server in self.desired.servers}
        for name in set(self.replicas) - set(wanted):
            del self.replicas[name]
            self.pods.pop(name, None)
        for name, count in wanted.items():
            self.replicas[name] = count
            pods = self.pods.setdefault(name, [])
            while len(pods) < count:
                pods.append(self.pod(name, len(pods)))
            del pods[count:]
        self.serving_revision = self.desired.serving_revision
        serving = self.pods.get(self.serving_revision or "", [])
        self.serving_pods = frozenset(pod.name for pod in serving if pod.ready)

    def pod(self, revision: str, index: int = 0) -> Pod:
        return Pod(
            name=f"images-{revision}-{index}-{self.now:%H%M%S}",
            uid=f"uid-{revision}-{index}-{self.now:%H%M%S}",
            created=self.now,
            ready=True,
            containers_ready=True,
        )

    def change_pod(self, revision: str, **changes: Any) -> None:
        self.pods[revision] = [replace(pod, **changes) for pod in self.pods[revision]]

    def measured(
        self,
        requests: int,
        *,
        slow: int = 0,
        failed: int = 0,
        seconds: Sequence[float] = (0.1,),
        out_of_memory: int = 0,
        stable: Sequence[int] | None = None,
        stable_slow: int = 0,
        stable_failed: int = 0,
    ) -> None:
        """Prometheus answers with counters of the candidate's pod and of stable's.

        Each of stable's pods served `stable` requests; without it, as many as the candidate.
        """
        pod = self.pods[self.candidate.revision][0]
        now = self.now
        servers = [
            counters(
                pod.name,
                now,
                requests,
                slow=slow,
                failed=failed,
                seconds=seconds,
                out_of_memory=out_of_memory,
            ),
            *(
                counters(other.name, now, count, slow=stable_slow, failed=stable_failed)
                for other, count in zip(
                    self.stable_pods, stable or [requests] * len(self.stable_pods), strict=True
                )
            ),
        ]
        self.metrics = Snapshot(
            time=now,
            servers={("team", totals.pod): totals for totals in servers},
            probes={
                ("team", PROBE.name): ProbeTotals(self.repeat_prompts, 0.0, loading=self.loading)
            },
        )

    @property
    def stable_pods(self) -> list[Pod]:
        assert self.status.stable is not None
        return self.pods[self.status.stable.revision]

    def hide(self, pod: str, why: str = "") -> None:
        """Take a pod's series out of what Prometheus answered, and say why not."""
        assert isinstance(self.metrics, Snapshot)
        kept = {key: totals for key, totals in self.metrics.servers.items() if key[1] != pod}
        unusable = {("team", pod): why} if why else {}
        self.metrics = replace(self.metrics, servers=kept, unusable=unusable)

    def bootstrap(self) -> str:
        """The first revision serves; returns its name."""
        for _ in range(4):
            self.look()
            self.cluster_follows()
            self.later(1)
        assert self.status.stable is not None
        assert self.status.candidate is None
        return self.status.stable.revision

    def try_another(self, **changes: Any) -> str:
        """Declare another model and bring its candidate under measurement; returns its name."""
        self.declare(**{"steps": 20, **changes})
        self.look()
        self.cluster_follows()
        self.later(5)
        self.look()
        self.cluster_follows()
        self.later(5)
        assert self.candidate.stage == "Isolated", self.candidate
        return self.revision


def warm_up(story: Story) -> None:
    """Let the requests pass that do not count."""
    story.measured(0)
    story.look()
    story.later(2)
    story.measured(5)
    story.look()
    story.later(2)
