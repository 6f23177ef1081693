"""Making the world as desired, with the fewest writes, touching nothing that is not ours."""

from __future__ import annotations

from typing import Any

from kubernetes.utils.quantity import parse_quantity

from modelrollout.api.names import (
    REVISION_LABEL,
    ROLLOUT_LABEL,
    revision_object_name,
    stable_service_name,
)
from modelrollout.api.revision import RevisionContent
from modelrollout.api.status import HISTORY_LIMIT
from modelrollout.cluster.build import (
    PROBE_RUN_ANNOTATION,
    Owner,
    controller_revision,
    deployment,
    probe_job,
    revision_service,
    stable_service,
)
from modelrollout.cluster.client import KubeClient, Resource
from modelrollout.cluster.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    JOBS,
    SERVICES,
)
from modelrollout.errors import Conflict, Invalid, Transient
from modelrollout.rollout.desired import Desired, ProbeRun, Server
from modelrollout.rollout.world import World
from modelrollout.settings import Pool, Runtime, Settings

__all__ = ["Applier", "controlled_by"]

Object = dict[str, Any]

PROBE_DEADLINE_SECONDS = 7 * 86400
"""Backstop for a probe that nobody ends: the longest analysis that can be declared."""


class Applier:
    """Creates, changes and removes the objects of rollouts."""

    def __init__(self, kube: KubeClient, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings

    async def apply(self, owner: Owner, desired: Desired, world: World) -> None:
        """Make the world as desired.

        The order matters when it stops half-way: users are pointed to pods that exist before
        anything else, and nothing is removed before that.

        Raises
        ------
        Conflict
            When an object of a name that is needed belongs to somebody else.
        Invalid
            When the API server refuses an object, or the catalogue lacks what a revision needs.
        """
        serving = desired.serving_revision
        if serving is not None and world.revision(serving).pods:
            await self._serve(owner, serving, world)
        revisions = await self._revisions(owner)
        try:
            for server in desired.servers:
                await self._server(owner, server, world, revisions)
            if serving is not None and not world.revision(serving).pods:
                await self._serve(owner, serving, world)
            await self._probe(owner, desired.probe, revisions)
        finally:
            # What is to go, goes, whatever hinders the rest: it holds GPUs.
            await self._remove_others(owner, desired, revisions)

    async def _revisions(self, owner: Owner) -> dict[str, Object]:
        items = await self._kube.find(
            CONTROLLER_REVISIONS, owner.namespace, {ROLLOUT_LABEL: owner.name}
        )
        return {
            item["metadata"]["labels"][REVISION_LABEL]: item
            for item in items
            if controlled_by(item, owner.uid)
        }

    async def _server(
        self, owner: Owner, server: Server, world: World, revisions: dict[str, Object]
    ) -> None:
        exists = world.revision(server.revision).replicas
        if server.content is None:
            await self._keep(owner, server, exists, revisions)
            return
        await self._record(owner, server, server.content, revisions)
        wanted = deployment(
            owner,
            server,
            server.content,
            self._pool(server.content.pool),
            self._runtime(server.content),
        )
        await self._ensure(owner, SERVICES, revision_service(owner, server.revision))
        await self._ensure(owner, DEPLOYMENTS, wanted)

    async def _keep(
        self, owner: Owner, server: Server, replicas: int | None, revisions: dict[str, Object]
    ) -> None:
        """Hold a revision that exists: its pods are the tested ones, only their number changes."""
        name = revision_object_name(owner.name, server.revision)
        await self._ensure(owner, SERVICES, revision_service(owner, server.revision))
        if replicas == server.replicas:
            return
        if replicas is not None:
            await self._kube.patch(
                DEPLOYMENTS, owner.namespace, name, {"spec": {"replicas": server.replicas}}
            )
            return
        record = revisions.get(server.revision)
        if record is None:
            raise Invalid(
                "RevisionLost",
                f"the Deployment and the ControllerRevision of revision {server.revision} are "
                "both gone; it cannot be made again. Change the spec to start a new one",
            )
        content = RevisionContent.model_validate(record["data"]["content"])
        edges = tuple(record["data"]["latencyEdgesMilliseconds"])
        again = Server(server.revision, server.replicas, content, edges)
        # The image of then, whatever the catalogue says now: it is what was tested.
        runtime = Runtime.model_validate(record["data"]["runtime"])
        wanted = deployment(owner, again, content, self._pool(content.pool), runtime)
        await self._ensure(owner, DEPLOYMENTS, wanted)

    async def _record(
        self,
        owner: Owner,
        server: Server,
        content: RevisionContent,
        revisions: dict[str, Object],
    ) -> None:
        record = revisions.get(server.revision)
        number = max((item["revision"] for item in revisions.values()), default=0) + 1
        wanted = controller_revision(owner, server, content, self._runtime(content), number)
        if record is not None and record["data"] == wanted["data"]:
            return
        if record is not None:
            # `data` is immutable; the model is the same, the edges or the server image are others.
            await self._delete(owner, CONTROLLER_REVISIONS, record)
        if await self._kube.create(CONTROLLER_REVISIONS, owner.namespace, wanted) is None:
            raise _taken(CONTROLLER_REVISIONS, wanted)
        revisions[server.revision] = wanted

    async def _serve(self, owner: Owner, revision: str, world: World) -> None:
        if world.serving_revision != revision:
            await self._ensure(owner, SERVICES, stable_service(owner, revision), always=True)

    async def _probe(
        self, owner: Owner, run: ProbeRun | None, revisions: dict[str, Object]
    ) -> None:
        jobs = await self._kube.find(JOBS, owner.namespace, {ROLLOUT_LABEL: owner.name})
        running = False
        for job in jobs:
            if not controlled_by(job, owner.uid):
                continue
            name = (job["metadata"].get("annotations") or {}).get(PROBE_RUN_ANNOTATION)
            wanted = run is not None and name == run.name
            if wanted and "deletionTimestamp" not in job["metadata"]:
                running = True
            else:
                await self._delete(owner, JOBS, job)
        if run is None or running:
            return
        content = RevisionContent.model_validate(revisions[run.candidate]["data"]["content"])
        job = probe_job(owner, run, self._runtime(content), deadline_seconds=PROBE_DEADLINE_SECONDS)
        if await self._kube.create(JOBS, owner.namespace, job) is None:
            # The previous stage's Job of that name is on its way out.
            raise Transient("ProbeEnding", "the previous probe has not ended yet")

    async def _remove_others(
        self, owner: Owner, desired: Desired, revisions: dict[str, Object]
    ) -> None:
        kept = {server.revision for server in desired.servers}
        labels = {ROLLOUT_LABEL: owner.name}
        stable = stable_service_name(owner.name)
        for resource in (DEPLOYMENTS, SERVICES):
            for item in await self._kube.find(resource, owner.namespace, labels):
                name, revision = (
                    item["metadata"]["name"],
                    item["metadata"]["labels"].get(REVISION_LABEL),
                )
                if name != stable and revision not in kept and controlled_by(item, owner.uid):
                    await self._delete(owner, resource, item)
        newest = sorted(revisions.values(), key=lambda item: item["revision"], reverse=True)
        for item in newest[HISTORY_LIMIT:]:
            if item["metadata"]["labels"][REVISION_LABEL] not in kept and "uid" in item["metadata"]:
                await self._delete(owner, CONTROLLER_REVISIONS, item)

    async def _ensure(
        self, owner: Owner, resource: Resource, wanted: Object, *, always: bool = False
    ) -> None:
        """Create or change an object of ours; one of somebody else's is left alone."""
        name = wanted["metadata"]["name"]
        found = await self._kube.get(resource, owner.namespace, name)
        if found is not None and not controlled_by(found, owner.uid):
            raise _taken(resource, wanted)
        if found is not None and "deletionTimestamp" in found["metadata"]:
            raise Transient("ObjectEnding", f"{resource} {name} of an earlier attempt is ending")
        if found is None or always or not _holds(found, wanted):
            await self._kube.apply(resource, owner.namespace, wanted)

    async def _delete(self, owner: Owner, resource: Resource, item: Object) -> None:
        metadata = item["metadata"]
        if "deletionTimestamp" not in metadata:
            await self._kube.delete(
                resource, owner.namespace, metadata["name"], uid=metadata["uid"]
            )

    def _pool(self, name: str) -> Pool:
        try:
            return self._settings.pools[name]
        except KeyError:
            raise Invalid(
                "UnknownPool", f"pool '{name}' is no longer in the administrator's configuration"
            ) from None

    def _runtime(self, content: RevisionContent) -> Runtime:
        name = content.serving.runtime
        try:
            return self._settings.runtimes[name]
        except KeyError:
            raise Invalid(
                "UnknownRuntime", f"runtime '{name}' is no longer in the administrator's catalogue"
            ) from None


def controlled_by(item: Object, uid: str) -> bool:
    """Return whether an object belongs to the rollout of that UID."""
    return any(
        reference.get("controller") and reference.get("uid") == uid
        for reference in item["metadata"].get("ownerReferences") or []
    )


def _taken(resource: Resource, wanted: Object) -> Conflict:
    name = wanted["metadata"]["name"]
    return Conflict(
        "NameConflict",
        f"{resource} '{name}' exists and does not belong to this rollout; "
        "rename the rollout or remove the other object",
    )


def _holds(found: Any, wanted: Any) -> bool:
    """Return whether an object has all that is wanted of it; what the server added is ignored."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _holds(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_holds(have, want) for have, want in zip(found, wanted, strict=True))
        )
    return bool(found == wanted) or _same_quantity(found, wanted)


def _same_quantity(found: Any, wanted: Any) -> bool:
    """Return whether two texts are one amount: the API server stores '0.5' as '500m'."""
    if not (isinstance(found, str) and isinstance(wanted, str)):
        return False
    try:
        return bool(parse_quantity(found) == parse_quantity(wanted))
    except ValueError:
        return False
