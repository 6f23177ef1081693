"""One look at one rollout: observe, decide, record, act.

The record is written before the world is changed: a decision that only lived in a killed process
would be taken again on other evidence. What should exist follows from the record alone, so acting
twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from modelrollout.api.names import ABORT_ANNOTATION, RETRY_ANNOTATION
from modelrollout.api.spec import Spec
from modelrollout.api.status import StageKind, Status
from modelrollout.errors import Conflict, Invalid, Transient
from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.acceptance import awaits_lint
from modelrollout.rollout.advance import advance
from modelrollout.rollout.announce import Announcement, announcements
from modelrollout.rollout.desired import Desired, desired_world
from modelrollout.rollout.inputs import Catalogue, Commands, Inputs, MetricsFailure
from modelrollout.rollout.summary import unreadable
from modelrollout.rollout.world import World

__all__ = ["Cluster", "Key", "Metrics", "Reconciler", "Rollout"]

_log = logging.getLogger(__name__)

BUSY_SECONDS = 1.0
"""Time to the next look while something is on its way that no watch may announce."""


@dataclass(frozen=True, slots=True)
class Key:
    """One incarnation of a rollout; another object of the same name is another rollout."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as the API server holds it now."""

    key: Key
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be made of the world, and how it was found."""

    desired: Desired
    world: World


class Cluster(Protocol):
    """What is asked of Kubernetes."""

    async def read(self, key: Key) -> Rollout | None:
        """Return the rollout, or ``None`` when this incarnation is gone."""
        ...

    async def observe(self, key: Key) -> World:
        """Return what exists of the rollout."""
        ...

    async def write_status(self, rollout: Rollout, status: Mapping[str, Any]) -> Rollout:
        """Replace the status; raise `Conflict` when the rollout has changed since it was read."""
        ...

    async def apply(self, rollout: Rollout, desired: Desired, world: World) -> None:
        """Make the world as desired; create, change and remove what differs."""
        ...

    async def clear_annotations(self, rollout: Rollout, names: list[str]) -> None:
        """Remove command annotations that were carried out, or are about nothing any more."""
        ...

    async def announce(self, rollout: Rollout, announcement: Announcement) -> None:
        """Post an event; never raises, events are a courtesy."""
        ...


class Metrics(Protocol):
    """What is asked of Prometheus."""

    async def snapshot(self) -> Snapshot:
        """Return all counters at one settled moment; raise `Transient` when it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Drives rollouts towards what they declare."""

    cluster: Cluster
    metrics: Metrics
    catalogue: Catalogue
    now: Callable[[], datetime]
    scrape_interval_seconds: float
    resync_seconds: float

    async def reconcile(self, key: Key, interrupted: asyncio.Event) -> float | None:
        """Look once, and return the seconds until the next look is due.

        Returns ``None`` when this incarnation of the rollout is gone for good.

        Parameters
        ----------
        key
            The rollout.
        interrupted
            Set when something happened in the cluster: Prometheus is then not waited for, so that
            a pod's death is dealt with at once however slow Prometheus is.

        Raises
        ------
        RolloutError
            When a dependency failed; the caller looks again later.
        """
        rollout = await self.cluster.read(key)
        if rollout is None:
            return None
        if rollout.deleting:
            return self.resync_seconds
        status = _stored_status(rollout)
        try:
            spec = Spec.model_validate(rollout.spec)
        except ValidationError as error:
            # A stored object can be older than the schema that is installed now.
            said = unreadable(status, error, generation=rollout.generation, now=self.now())
            await self._record(rollout, status, said)
            return self.resync_seconds
        world = await self.cluster.observe(key)
        inputs = Inputs(
            namespace=key.namespace,
            name=key.name,
            generation=rollout.generation,
            spec=spec,
            status=status,
            world=world,
            metrics=await self._measured(status, rollout.generation, interrupted),
            catalogue=self.catalogue,
            now=self.now(),
            scrape_interval=timedelta(seconds=self.scrape_interval_seconds),
            commands=_commands(rollout),
        )
        # In a thread, because to foretell the ends of many gates can take a while.
        decided = await asyncio.to_thread(advance, inputs)
        await self._record(rollout, status, decided, Act(desired_world(spec, decided), world))
        return self._next_look(status, decided)

    async def _measured(
        self, status: Status, generation: int, interrupted: asyncio.Event
    ) -> Snapshot | MetricsFailure | None:
        candidate = status.candidate
        judged = candidate is not None and candidate.stage is StageKind.ISOLATED
        if not judged and not awaits_lint(status, generation):
            return None
        answer = asyncio.ensure_future(self.metrics.snapshot())
        interruption = asyncio.ensure_future(interrupted.wait())
        try:
            await asyncio.wait({answer, interruption}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        except Transient as error:
            return MetricsFailure(error.reason, error.message)
        finally:
            answer.cancel()
            interruption.cancel()

    async def _record(
        self, rollout: Rollout, before: Status, after: Status, act: Act | None = None
    ) -> None:
        """Write what was decided, carry it out, and only then tell of it."""
        if after != before:
            rollout = await self.cluster.write_status(rollout, after.to_api())
        news = announcements(before, after)
        try:
            if act is not None:
                await self.cluster.apply(rollout, act.desired, act.world)
        except (Invalid, Conflict) as error:
            # It will not mend itself within a moment: somebody has to read of it.
            news.append(Announcement(error.reason, "Apply", error.message, warning=True))
            raise
        finally:
            await self._tell(rollout, news)
            await self._clear_commands(rollout, after)

    async def _tell(self, rollout: Rollout, news: list[Announcement]) -> None:
        for item in news:
            _log.info(
                "%s/%s %s: %s", rollout.key.namespace, rollout.key.name, item.reason, item.note
            )
            await self.cluster.announce(rollout, item)

    async def _clear_commands(self, rollout: Rollout, status: Status) -> None:
        """Remove commands that were carried out, or are about nothing any more."""
        candidate = status.candidate
        waits = candidate is not None and candidate.stage is StageKind.ROLLBACK
        # A retry that comes while its revision is still being taken out is for afterwards.
        names = [ABORT_ANNOTATION] if waits else [ABORT_ANNOTATION, RETRY_ANNOTATION]
        present = [name for name in names if name in rollout.annotations]
        if present:
            await self.cluster.clear_annotations(rollout, present)

    def _next_look(self, before: Status, after: Status) -> float:
        if after.candidate is None:
            return BUSY_SECONDS if before.candidate is not None else self.resync_seconds
        if before.candidate is None or before.candidate.stage is not after.candidate.stage:
            return 0.0
        match after.candidate.stage:
            case StageKind.ISOLATED:
                return self.scrape_interval_seconds
            case StageKind.HELD:
                return self.resync_seconds
            case StageKind.LOAD:
                return min(BUSY_SECONDS * 5, self.resync_seconds)
            case StageKind.PROMOTE | StageKind.SWITCH | StageKind.ROLLBACK:
                return BUSY_SECONDS


def _stored_status(rollout: Rollout) -> Status:
    try:
        return Status.model_validate(rollout.status)
    except ValidationError as error:
        raise Invalid(
            "StatusUnreadable",
            f"the status of {rollout.key.namespace}/{rollout.key.name} was not written by this "
            f"version of the operator: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}; "
            "run the version that wrote it, or remove the status",
        ) from error


def _commands(rollout: Rollout) -> Commands:
    return Commands(
        abort=rollout.annotations.get(ABORT_ANNOTATION, ""),
        retry=rollout.annotations.get(RETRY_ANNOTATION, ""),
    )
