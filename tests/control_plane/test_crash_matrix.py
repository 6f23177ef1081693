"""An operator that is killed after any of its writes ends where an undisturbed one ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client, config

from modelrollout.cluster.client import KubeClient
from modelrollout.cluster.events import EventRecorder
from modelrollout.cluster.kubernetes import KubernetesCluster
from modelrollout.cluster.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    JOBS,
    MODEL_ROLLOUTS,
    SERVICES,
)
from modelrollout.errors import RolloutError
from modelrollout.reconcile import Key, Reconciler
from modelrollout.rollout.inputs import Catalogue
from modelrollout.settings import Runtime, Settings
from tests.cluster.handle import Cluster
from tests.control_plane.player import Clock, Player
from tests.unit.rollout.story import LATENCY_GATE, MEMORY_GATE, spec_document

pytestmark = pytest.mark.cluster

Object = dict[str, Any]

SETTINGS = Settings.model_validate(
    {
        "prometheus": {"url": "http://prometheus", "scrapeIntervalSeconds": 2},
        "pools": {"preview": {"gpuHourPrice": "3"}},
        "runtimes": {"default": {"image": "inference:1"}},
    }
)
GATES = [
    LATENCY_GATE,
    MEMORY_GATE,
    {"name": "beside-stable", "latency": {"maxIncreasePercent": 25}},
]
MOST_LOOKS = 60


class Killed(BaseException):
    """The operator process is gone; nothing may catch this but the test."""


class FusedClient(KubeClient):
    """A client whose process dies right after its n-th write."""

    def __init__(self, api: client.ApiClient, *, dies_after: int | None) -> None:
        super().__init__(api)
        self._dies_after = dies_after
        self.writes: list[str] = []

    async def _request(self, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        answer = await super()._request(method, path, *arguments, **options)
        if method != "GET" and "/events" not in path:
            self.writes.append(f"{method} {path}")
            if len(self.writes) == self._dies_after:
                raise Killed
        return answer


class World:
    """One rollout on the API server, the player, and operators that come and go."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = Clock()
        self._kube = KubeClient(api)
        self.player = Player(self._kube, namespace, "images", self._clock)

    async def declare(self, *, steps: int) -> Key:
        body = {
            "apiVersion": "modelrollout.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": "images"},
            "spec": spec_document(steps=steps, gates=GATES),
        }
        stored = await self._kube.apply(MODEL_ROLLOUTS, self._namespace, body)
        return Key(self._namespace, "images", stored["metadata"]["uid"])

    async def lose_deployment(self, revision: str) -> None:
        name = f"images-{revision}"
        found = await self._kube.get(DEPLOYMENTS, self._namespace, name)
        assert found is not None
        uid = found["metadata"]["uid"]
        await self._kube.delete(DEPLOYMENTS, self._namespace, name, uid=uid)
        await self.player.play()

    async def image(self, revision: str) -> str:
        found = await self._kube.get(DEPLOYMENTS, self._namespace, f"images-{revision}")
        assert found is not None
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    async def run(
        self, key: Key, *, dies_after: int | None = None, settings: Settings = SETTINGS
    ) -> list[str]:
        """Run an operator until the rollout is at rest, or until it is killed."""
        kube = FusedClient(self._api, dies_after=dies_after)
        reconciler = Reconciler(
            cluster=KubernetesCluster(kube, settings, EventRecorder(kube, "test", self._clock)),
            metrics=self.player,
            catalogue=Catalogue({"preview": SETTINGS.pools["preview"].gpu_hour_price},
                                frozenset({"default"})),
            now=self._clock,
            scrape_interval_seconds=2,
            resync_seconds=30,
        )  # fmt: skip
        for _ in range(MOST_LOOKS):
            try:
                due = await reconciler.reconcile(key, asyncio.Event())
            except Killed:
                return kube.writes
            except RolloutError:
                due = 1.0
            await self.player.play()
            self._clock.later(2)
            if due == reconciler.resync_seconds:
                return kube.writes
        raise AssertionError(f"not at rest after {MOST_LOOKS} looks: {kube.writes[-5:]}")

    async def result(self) -> Object:
        """Return the end state without what differs between any two runs."""
        stored = await self._kube.get(MODEL_ROLLOUTS, self._namespace, "images")
        assert stored is not None
        status = stored["status"]
        objects = {
            str(resource): sorted(
                item["metadata"]["name"]
                for item in await self._kube.find(
                    resource, self._namespace, {"modelrollout.dev/rollout": "images"}
                )
            )
            for resource in (DEPLOYMENTS, SERVICES, JOBS, CONTROLLER_REVISIONS)
        }
        service = await self._kube.get(SERVICES, self._namespace, "images")
        assert service is not None
        return {
            "objects": objects,
            "serving": service["spec"]["selector"],
            "stable": status["stable"]["revision"],
            "candidate": status.get("candidate"),
            "rejected": (status.get("rejected") or {}).get("revision"),
            "attempts": status["attempts"],
            "history": [(item["attempt"], item["outcome"]) for item in status["history"]],
            "conditions": {item["type"]: item["status"] for item in status["conditions"]},
        }


@pytest.fixture
async def api(control_plane: Cluster) -> AsyncIterator[client.ApiClient]:
    configuration = client.Configuration()
    await config.load_kube_config(
        config_file=str(control_plane.kubeconfig), client_configuration=configuration
    )
    async with client.ApiClient(configuration) as connected:
        yield connected


async def rehearse(api: client.ApiClient, namespace: str, *, slow: float) -> tuple[Object, int]:
    """Run undisturbed; return the end state and the number of writes of the second attempt."""
    world = World(api, namespace)
    await world.run(await world.declare(steps=10))
    world.player.slow = slow
    writes = await world.run(await world.declare(steps=20))
    return await world.result(), len(writes)


@pytest.mark.parametrize("slow", [0.0, 0.9], ids=["promotion", "rollback"])
async def test_killed_after_any_write_the_end_is_the_same(
    api: client.ApiClient, control_plane: Cluster, namespace: str, slow: float
) -> None:
    expected, writes = await rehearse(api, namespace, slow=slow)
    assert expected["history"][0] == (2, "RolledBack" if slow else "Promoted")
    assert writes > 5

    for number in range(1, writes + 1):
        scene = f"{namespace}-{number}"
        control_plane.kubectl("create", "namespace", scene)
        world = World(api, scene)
        await world.run(await world.declare(steps=10))
        world.player.slow = slow
        key = await world.declare(steps=20)

        killed = await world.run(key, dies_after=number)
        await world.player.play()
        await world.run(key)

        assert await world.result() == expected, f"killed after {killed[-1]}"


async def test_a_lost_stable_is_made_again_with_the_server_image_that_was_tested(
    api: client.ApiClient, namespace: str
) -> None:
    world = World(api, namespace)
    key = await world.declare(steps=10)
    await world.run(key)
    stable = (await world.result())["stable"]

    newer = SETTINGS.model_copy(update={"runtimes": {"default": Runtime(image="inference:2")}})
    await world.run(key, settings=newer)
    assert await world.image(stable) == "inference:1", "stable is not rewritten"
    await world.lose_deployment(stable)
    await world.run(key, settings=newer)
    assert await world.image(stable) == "inference:1"
