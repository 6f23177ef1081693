"""Events (``events.k8s.io/v1``): a courtesy to people; nothing depends on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from modelrollout.api.names import API_VERSION, GROUP, KIND
from modelrollout.cluster.client import KubeClient
from modelrollout.cluster.resources import EVENTS
from modelrollout.errors import RolloutError
from modelrollout.reconcile import Key, Rollout
from modelrollout.rollout.announce import Announcement

__all__ = ["EventRecorder"]

_log = logging.getLogger(__name__)

NOTE_LIMIT: Final = 1024
POST_TIMEOUT_SECONDS: Final = 3.0
REMEMBERED: Final = 4096


class EventRecorder:
    """Posts events; a repeat of the last one about an object is not posted again.

    Parameters
    ----------
    kube
        Client for the API server.
    instance
        Name of this process, such as the pod's.
    now
        The clock.
    """

    def __init__(self, kube: KubeClient, instance: str, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._instance = instance[:128]
        self._now = now
        self._last: dict[Key, Announcement] = {}

    async def post(self, rollout: Rollout, announcement: Announcement) -> None:
        """Post one event; a failure is logged and forgotten."""
        key = rollout.key
        if self._last.get(key) == announcement:
            return
        while len(self._last) >= REMEMBERED:
            del self._last[next(iter(self._last))]
        self._last[key] = announcement
        moment = self._now().astimezone(UTC)
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{key.name}.{uuid4().hex[:16]}", "namespace": key.namespace},
            "eventTime": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "action": announcement.action,
            "reason": announcement.reason[:128],
            "type": "Warning" if announcement.warning else "Normal",
            "note": announcement.note.encode()[:NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": key.namespace,
                "name": key.name,
                "uid": key.uid,
                "resourceVersion": rollout.resource_version,
            },
        }
        try:
            async with asyncio.timeout(POST_TIMEOUT_SECONDS):
                await self._kube.create(EVENTS, key.namespace, body)
        except (RolloutError, TimeoutError) as error:
            _log.warning("event about %s/%s not posted: %s", key.namespace, key.name, error)
