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
STALLED_LOOKS: Final = 10
"""When no look came to an end for so many times the longest wait between two, although there are
rollouts, the process is unwell."""


class _Operator:
    """The handlers of this process: they wake loops, and each loop drives one rollout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reconciler: Reconciler | None = None
        # Kept for the life of the process: a rollout that is made again under the same name may be
        # driven before the loop of the old one has ended, and both wait for the same signal.
        self._wakeups: dict[tuple[str, str], asyncio.Event] = {}
        self._driven: set[Key] = set()
        self._last_look = time.monotonic()

    async def start_up(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Prepare Kopf and the clients, once its event loop runs."""
        _configure(settings)
        self._reconciler = await _reconciler(self._settings)

    async def log_in(self, **details: Any) -> kopf.ConnectionInfo | None:
        """Give Kopf the credentials of the pod, or those of the kubeconfig."""
        return kopf.login_with_service_account(**details) or kopf.login_with_kubeconfig(**details)

    async def wake(self, namespace: str | None, name: str | None, **_: Any) -> None:
        """Have a rollout looked at now."""
        self._wakeup(namespace or "", name or "").set()

    async def wake_owner(self, namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        """Have the rollout looked at that an object belongs to."""
        self._wakeup(namespace or "", labels[ROLLOUT_LABEL]).set()

    async def drive(
        self, namespace: str | None, name: str, uid: str, stopped: kopf.DaemonStopped, **_: Any
    ) -> None:
        """Look at a rollout again and again until it is gone or the process ends."""
        key = Key(namespace or "", name, uid)
        wakeup = self._wakeup(key.namespace, key.name)
        failures = 0
        self._driven.add(key)
        try:
            while not stopped:
                wakeup.clear()
                due, failures = await self._look(key, wakeup, failures)
                if due is None:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wakeup.wait(), timeout=due)
        finally:
            self._driven.discard(key)

    async def stalled(self, **_: Any) -> str:
        """Tell the liveness probe whether looks still come to an end."""
        silent = time.monotonic() - self._last_look
        if self._driven and silent > max(60.0, STALLED_LOOKS * self._settings.resync_seconds):
            raise kopf.PermanentError(f"no look at a rollout finished for {silent:.0f} s")
        return f"{silent:.0f} s since the last look"

    def _wakeup(self, namespace: str, name: str) -> asyncio.Event:
        return self._wakeups.setdefault((namespace, name), asyncio.Event())

    async def _look(
        self, key: Key, wakeup: asyncio.Event, failures: int
    ) -> tuple[float | None, int]:
        """Look once; return the seconds to the next look and the failures in a row."""
        if self._reconciler is None:
            raise RuntimeError("Kopf started a daemon before the start-up handler had ended")
        try:
            return await self._reconciler.reconcile(key, wakeup), 0
        except Conflict as error:
            _log.info("%s/%s: looking again: %s", key.namespace, key.name, error)
        except RolloutError as error:
            _log.warning("%s/%s: %s: %s", key.namespace, key.name, error.reason, error)
        except Exception:  # noqa: BLE001 - told with its traceback, and tried again
            # A daemon that raises would be silent for a minute; ours must go on.
            _log.exception("%s/%s: unexpected error", key.namespace, key.name)
        finally:
            self._last_look = time.monotonic()
        return _backoff(failures), failures + 1


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
    # Every event and every liveness probe would be told of; the reconciler tells what matters.
    for chatty in ("kopf.objects", "kopf.activities.probe", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = load_settings(config)
    asyncio.run(_check_access())
    registry = kopf.OperatorRegistry()
    _register(registry, _Operator(settings))
    asyncio.run(
        kopf.operator(
            registry=registry,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            liveness_endpoint=liveness,
        )
    )


def _register(registry: kopf.OperatorRegistry, operator: _Operator) -> None:
    rollouts = (GROUP, VERSION, PLURAL)
    kopf.on.startup(registry=registry, id="start-up")(operator.start_up)
    kopf.on.login(registry=registry, id="log-in")(operator.log_in)
    kopf.on.event(*rollouts, registry=registry, id="wake")(operator.wake)
    for kind in (("", "v1", "pods"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs")):
        kopf.on.event(
            *kind, registry=registry, id="wake-owner", labels={ROLLOUT_LABEL: kopf.PRESENT}
        )(operator.wake_owner)
    kopf.daemon(*rollouts, registry=registry, id="drive", cancellation_timeout=5.0)(operator.drive)
    kopf.on.probe(registry=registry, id="stalled", errors=kopf.ErrorsMode.PERMANENT)(
        operator.stalled
    )


async def _check_access() -> None:
    """Fail with one clear message before Kopf begins to retry."""
    kube = await connect()
    await kube.close()


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


async def _reconciler(settings: Settings) -> Reconciler:
    now = functools.partial(datetime.now, UTC)
    kube = await connect()
    recorder = EventRecorder(kube, os.environ.get("POD_NAME") or socket.gethostname(), now)
    return Reconciler(
        cluster=KubernetesCluster(kube, settings, recorder),
        metrics=PrometheusMetrics(settings.prometheus, now),
        catalogue=Catalogue(
            gpu_hour_prices={name: pool.gpu_hour_price for name, pool in settings.pools.items()},
            runtimes=frozenset(settings.runtimes),
        ),
        now=now,
        scrape_interval_seconds=settings.prometheus.scrape_interval_seconds,
        resync_seconds=settings.resync_seconds,
    )


def _backoff(failures: int) -> float:
    """Return the wait after a failure, with jitter so that many loops do not move in step."""
    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
    return wait * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
