"""The test plays the controllers of the cluster and Prometheus, on a real API server.

There is no node: Deployments get pods, pods become ready and Services get endpoints because the
player says so. Everything that the operator reads and writes goes through the real API.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from modelrollout.api.conditions import format_time
from modelrollout.api.names import COMPONENT_LABEL, REVISION_LABEL, ROLLOUT_LABEL
from modelrollout.cluster.client import KubeClient
from modelrollout.cluster.resources import DEPLOYMENTS, ENDPOINT_SLICES, JOBS, PODS, SERVICES
from modelrollout.gates.evidence import ProbeTotals, Snapshot
from tests.unit.rollout.story import counters

Object = dict[str, Any]


class Clock:
    """Time that the test moves; it never stands still between two looks at it."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def later(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Player:
    """Does what kube-controller-manager, kubelet and Prometheus would do for one rollout."""

    def __init__(self, kube: KubeClient, namespace: str, rollout: str, clock: Clock) -> None:
        self._kube = kube
        self._namespace = namespace
        self._rollout = rollout
        self._clock = clock
        self.slow = 0.0
        """Share of the candidate's requests that take longer than its latency gate allows."""

        self._served: dict[str, int] = {}

    async def play(self) -> None:
        """Bring pods and endpoints up to date with Deployments and Services."""
        labels = {ROLLOUT_LABEL: self._rollout}
        deployments = {
            item["metadata"]["labels"][REVISION_LABEL]: item
            for item in await self._kube.find(DEPLOYMENTS, self._namespace, labels)
        }
        for pod in await self._pods():
            if pod["metadata"]["labels"][REVISION_LABEL] not in deployments:
                await self._kube.delete(
                    PODS, self._namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"]
                )
        for deployment in deployments.values():
            await self._pods_of(deployment)
        await self._probe_pods()
        await self._endpoints()

    async def _pods(self) -> list[Object]:
        labels = {ROLLOUT_LABEL: self._rollout, COMPONENT_LABEL: "server"}
        return await self._kube.find(PODS, self._namespace, labels)

    async def _pods_of(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        for index in range(deployment["spec"]["replicas"]):
            name = f"{deployment['metadata']['name']}-{index}"
            if await self._kube.get(PODS, self._namespace, name) is not None:
                continue
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": template["metadata"]["labels"]},
                "spec": template["spec"],
            }
            await self._kube.create(PODS, self._namespace, pod)
            ready = {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": format_time(self._clock()),
            }
            await self._kube.patch(
                *(PODS, self._namespace, name),
                {"status": {"phase": "Running", "conditions": [ready]}},
                subresource="status",
            )

    async def _probe_pods(self) -> None:
        labels = {ROLLOUT_LABEL: self._rollout}
        jobs = {
            item["metadata"]["name"]: item
            for item in await self._kube.find(JOBS, self._namespace, labels)
        }
        probe = {**labels, COMPONENT_LABEL: "probe"}
        for pod in await self._kube.find(PODS, self._namespace, probe):
            name = pod["metadata"]["name"]
            if jobs.pop(name, None) is None:
                await self._kube.delete(PODS, self._namespace, name, uid=pod["metadata"]["uid"])
        for name, job in jobs.items():
            template = job["spec"]["template"]
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": template["metadata"]["labels"]},
                "spec": template["spec"],
            }
            await self._kube.create(PODS, self._namespace, pod)

    async def _endpoints(self) -> None:
        service = await self._kube.get(SERVICES, self._namespace, self._rollout)
        if service is None:
            return
        selector = service["spec"]["selector"]
        pods = await self._kube.find(PODS, self._namespace, selector)
        await self._kube.apply(
            ENDPOINT_SLICES,
            self._namespace,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{self._rollout}-slice",
                    "labels": {"kubernetes.io/service-name": self._rollout},
                },
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": [f"10.9.0.{number + 1}"],
                        "conditions": {"ready": True},
                        "targetRef": {
                            "kind": "Pod",
                            "name": pod["metadata"]["name"],
                            "uid": pod["metadata"]["uid"],
                        },
                    }
                    for number, pod in enumerate(pods)
                ],
                "ports": [{"name": "http", "port": 8000}],
            },
        )

    async def snapshot(self) -> Snapshot:
        """Return the counters of all pods: each look finds 25 requests more."""
        service = await self._kube.get(SERVICES, self._namespace, self._rollout)
        stable = "" if service is None else service["spec"]["selector"].get(REVISION_LABEL, "")
        servers = {}
        for pod in await self._pods():
            name = pod["metadata"]["name"]
            served = self._served[name] = self._served.get(name, -25) + 25
            on_trial = pod["metadata"]["labels"][REVISION_LABEL] != stable
            slow = round(served * self.slow) if on_trial else 0
            servers[self._namespace, name] = counters(name, self._clock(), served, slow=slow)
        labels = {ROLLOUT_LABEL: self._rollout, COMPONENT_LABEL: "probe"}
        probes = {
            (self._namespace, pod["metadata"]["name"]): ProbeTotals(8, 0.0, loading=True)
            for pod in await self._kube.find(PODS, self._namespace, labels)
        }
        return Snapshot(time=self._clock(), servers=servers, probes=probes)
