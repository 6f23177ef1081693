"""The cluster port on a real API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelrollout.api.names import (
    REVISION_LABEL,
    ROLLOUT_LABEL,
    stable_service_name,
)
from modelrollout.cluster.apply import Applier, controlled_by
from modelrollout.cluster.build import Owner
from modelrollout.cluster.client import KubeClient
from modelrollout.cluster.events import EventRecorder
from modelrollout.cluster.observe import world_of
from modelrollout.cluster.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    MODEL_ROLLOUTS,
    PODS,
    SERVICES,
)
from modelrollout.errors import Conflict
from modelrollout.reconcile import Key, Rollout
from modelrollout.rollout.announce import Announcement
from modelrollout.rollout.desired import Desired
from modelrollout.rollout.world import World
from modelrollout.settings import Settings

__all__ = ["KubernetesCluster"]

Object = dict[str, Any]


class KubernetesCluster:
    """Reads and writes one cluster; implements ``reconcile.Cluster``."""

    def __init__(self, kube: KubeClient, settings: Settings, recorder: EventRecorder) -> None:
        self._kube = kube
        self._applier = Applier(kube, settings)
        self._recorder = recorder

    async def read(self, key: Key) -> Rollout | None:
        """Return the rollout, or ``None`` when this incarnation is gone."""
        document = await self._kube.get(MODEL_ROLLOUTS, key.namespace, key.name)
        if document is None or document["metadata"]["uid"] != key.uid:
            return None
        return _rollout(key, document)

    async def observe(self, key: Key) -> World:
        """Return what exists of the rollout; objects that it does not own are left out."""
        namespace, labels = key.namespace, {ROLLOUT_LABEL: key.name}
        service_name = stable_service_name(key.name)
        service = await self._kube.get(SERVICES, namespace, service_name)
        taken = service is not None and not controlled_by(service, key.uid)
        # Endpoints before pods: every pod that they name is then known, unless it is gone.
        slices = await self._kube.find(
            ENDPOINT_SLICES, namespace, {"kubernetes.io/service-name": service_name}
        )
        deployments = await self._kube.find(DEPLOYMENTS, namespace, labels)
        jobs = await self._kube.find(JOBS, namespace, labels)
        pods = await self._kube.find(PODS, namespace, labels)
        return world_of(
            deployments=[item for item in deployments if controlled_by(item, key.uid)],
            pods=[item for item in pods if REVISION_LABEL in item["metadata"]["labels"]],
            jobs=[item for item in jobs if controlled_by(item, key.uid)],
            service=None if taken else service,
            endpoint_slices=[] if taken else slices,
            name_taken=service_name if taken else "",
        )

    async def write_status(self, rollout: Rollout, status: Mapping[str, Any]) -> Rollout:
        """Replace the status; raise `Conflict` when the rollout has changed since it was read."""
        key = rollout.key
        document = await self._kube.patch(
            MODEL_ROLLOUTS,
            key.namespace,
            key.name,
            [
                {"op": "test", "path": "/metadata/uid", "value": key.uid},
                {
                    "op": "replace",
                    "path": "/metadata/resourceVersion",
                    "value": rollout.resource_version,
                },
                {"op": "add", "path": "/status", "value": dict(status)},
            ],
            subresource="status",
        )
        if document is None:
            raise Conflict("Gone", f"{key.namespace}/{key.name} was deleted meanwhile")
        return _rollout(key, document)

    async def apply(self, rollout: Rollout, desired: Desired, world: World) -> None:
        """Make the world as desired; create, change and remove what differs."""
        key = rollout.key
        await self._applier.apply(Owner(key.namespace, key.name, key.uid), desired, world)

    async def clear_annotations(self, rollout: Rollout, names: list[str]) -> None:
        """Remove annotations as long as they still say what was read."""
        operations: list[Object] = []
        for name in names:
            path = "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")
            operations += [
                {"op": "test", "path": path, "value": rollout.annotations[name]},
                {"op": "remove", "path": path},
            ]
        await self._kube.patch(MODEL_ROLLOUTS, rollout.key.namespace, rollout.key.name, operations)

    async def announce(self, rollout: Rollout, announcement: Announcement) -> None:
        """Post an event; never raises."""
        await self._recorder.post(rollout, announcement)


def _rollout(key: Key, document: Object) -> Rollout:
    metadata = document["metadata"]
    return Rollout(
        key=key,
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        spec=document.get("spec") or {},
        status=document.get("status") or {},
        annotations=metadata.get("annotations") or {},
        deleting="deletionTimestamp" in metadata,
    )
