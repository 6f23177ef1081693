"""The operator's process: Kopf watches and wakes, `modelrollout.reconcile` does the work.

One daemon per rollout is a level-based loop. Raw events only wake it; nothing is decided from what
an event says. This is the only module that imports Kopf.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kopf

from modelrollout.api.names import FINALIZER, GROUP, PLURAL, ROLLOUT_LABEL, VERSION
from modelrollout.cluster.client import connect
from modelrollout.cluster.events import EventRecorder
from modelrollout.cluster.kubernetes import KubernetesCluster
from modelrollout.errors import Conflict, RolloutError
from modelrollout.evidence.prometheus import PrometheusMetrics
from modelrollout.reconcile import Key, Reconciler
from modelrollout.rollout.inputs import Catalogue
from modelrollout.settings import Settings, load_settings

__all__ = ["run"]

_log = logging.getLogger(__name__)

BACKOFF_SECONDS: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
STALLED_SECONDS: Final = 300.0
"""Without any finished look for this long, although there are rollouts, the process is unwell."""


@dataclass
class _Loops:
    """The loops of this process: one wake-up signal per rollout."""

    reconciler: Reconciler
    wakeups: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    last_finished: float = field(default_factory=time.monotonic)

    def wakeup(self, namespace: str, name: str) -> asyncio.Event:
        return self.wakeups.setdefault((namespace, name), asyncio.Event())

    async def drive(self, key: Key, stopped: kopf.DaemonStopped) -> None:
        """Look again and again until the rollout is gone or the process ends."""
        wakeup = self.wakeup(key.namespace, key.name)
        failures = 0
        while not stopped:
            wakeup.clear()
            try:
                due = await self.reconciler.reconcile(key)
                failures = 0
            except Conflict as error:
                _log.info("%s/%s: looking again: %s", key.namespace, key.name, error)
                due = _backoff(failures)
                failures += 1
            except RolloutError as error:
                _log.warning("%s/%s: %s: %s", key.namespace, key.name, error.reason, error)
                due = _backoff(failures)
                failures += 1
            except Exception:  # noqa: BLE001 - logged with its traceback, and tried again
                # A daemon that raises would be silent for a minute; ours must go on.
                _log.exception("%s/%s: unexpected error", key.namespace, key.name)
                due = _backoff(failures)
                failures += 1
            self.last_finished = time.monotonic()
            if due is None:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wakeup.wait(), timeout=due)
        self.wakeups.pop((key.namespace, key.name), None)


def run(config: Path, *, namespaces: Sequence[str], liveness: str) -> None:
    """Run the operator until it is told to stop.

    Parameters
    ----------
    config
        The administrator's configuration file.
    namespaces
        Namespaces to watch; none means all.
    liveness
        Address that the liveness probe asks, such as ``http://0.0.0.0:8080/healthz``.

    Raises
    ------
    Invalid
        When the configuration or the access to the cluster cannot be used.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = load_settings(config)
    registry = kopf.OperatorRegistry()
    _register(registry, settings)
    asyncio.run(
        kopf.operator(
            registry=registry,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            liveness_endpoint=liveness,
        )
    )


def _register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    holder: list[_Loops] = []

    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        holder.append(await _loops(admin))

    admin = settings
    kopf.on.startup(registry=registry)(startup)

    async def log_in(**details: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**details) or kopf.login_with_kubeconfig(**details)

    kopf.on.login(registry=registry, id="log-in")(log_in)

    async def wake(namespace: str | None, name: str | None, **_: Any) -> None:
        if holder and namespace and name:
            holder[0].wakeup(namespace, name).set()

    async def wake_owner(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        await wake(namespace=namespace, name=labels.get(ROLLOUT_LABEL))

    async def drive(
        namespace: str | None, name: str, uid: str, stopped: kopf.DaemonStopped, **_: Any
    ) -> None:
        await holder[0].drive(Key(namespace or "", name, uid), stopped)

    async def clean_up(namespace: str | None, name: str, **_: Any) -> None:
        """Log the end; what a rollout owns goes with it by its owner references."""
        _log.info("%s/%s: deleted; its objects are removed with it", namespace, name)

    async def stalled(**_: Any) -> str:
        silent = time.monotonic() - holder[0].last_finished if holder else 0.0
        if holder and holder[0].wakeups and silent > STALLED_SECONDS:
            raise kopf.PermanentError(f"no look at a rollout finished for {silent:.0f} s")
        return f"{silent:.0f} s since the last look"

    resource = (GROUP, VERSION, PLURAL)
    kopf.on.event(*resource, registry=registry, id="wake")(wake)
    for kind in (("", "v1", "pods"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs")):
        kopf.on.event(
            *kind, registry=registry, id="wake-owner", labels={ROLLOUT_LABEL: kopf.PRESENT}
        )(wake_owner)
    kopf.daemon(*resource, registry=registry, id="drive", cancellation_timeout=5.0)(drive)
    kopf.on.delete(*resource, registry=registry, id="clean-up")(clean_up)
    kopf.on.probe(registry=registry, id="stalled", errors=kopf.ErrorsMode.PERMANENT)(stalled)


def _configure(settings: kopf.OperatorSettings) -> None:
    prefix = f"kopf.{GROUP}"
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=prefix, v1=False)
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix, v1=False)
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = [0.5, 1, 2, 5]
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.process.ultimate_exiting_timeout = 20


async def _loops(settings: Settings) -> _Loops:
    now = functools.partial(datetime.now, UTC)
    kube = await connect()
    recorder = EventRecorder(kube, os.environ.get("POD_NAME") or socket.gethostname(), now)
    return _Loops(
        Reconciler(
            cluster=KubernetesCluster(kube, settings, recorder),
            metrics=PrometheusMetrics(settings.prometheus, now),
            catalogue=Catalogue(
                gpu_hour_prices={
                    name: pool.gpu_hour_price for name, pool in settings.pools.items()
                },
                runtimes=frozenset(settings.runtimes),
            ),
            now=now,
            scrape_interval_seconds=settings.prometheus.scrape_interval_seconds,
            resync_seconds=settings.resync_seconds,
        )
    )


def _backoff(failures: int) -> float:
    """Return the wait after a failure, with jitter so that many loops do not move in step."""
    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
    return wait * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
