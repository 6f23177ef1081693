"""The source of evidence: one round of queries to Prometheus serves all rollouts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException

from modelrollout.errors import Transient
from modelrollout.evidence.collector import Sample, collect
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES
from modelrollout.evidence.session import Failure, GuardedSession
from modelrollout.gates.evidence import Snapshot
from modelrollout.settings import PrometheusSettings

__all__ = ["LOOKBACK_INTERVALS", "SETTLED_INTERVALS", "PrometheusMetrics"]

_log = logging.getLogger(__name__)

SETTLED_INTERVALS: Final = 2
"""Evidence is as old as this many scrapes: younger ones may not have arrived of all pods."""

LOOKBACK_INTERVALS: Final = 4
"""A series without a sample for this many scrapes is no data."""

_SHARED_INTERVALS: Final = 0.5
"""Rollouts that ask within this part of a scrape interval share an answer."""

_MALFORMED: Final = (
    PrometheusApiClientException,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What comes of reading a document that has another shape than it should have."""


class PrometheusMetrics:
    """Counters and probe results in Prometheus.

    However many rollouts ask, there is one round of queries at a time, and its outcome, good or
    bad, serves everybody who asks while it is under way or shortly after.

    Parameters
    ----------
    settings
        How Prometheus is reached.
    clock
        Returns the time now, with its zone.
    """

    def __init__(self, settings: PrometheusSettings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._clock = clock
        # For messages: the address without the credentials that may be in it.
        self._host = urlsplit(settings.url).netloc.rpartition("@")[2]
        self._round: asyncio.Task[Snapshot | Transient] | None = None
        self._asked = clock()
        self._at_work = threading.Lock()
        self._unusable: Mapping[tuple[str, str], str] = {}

    async def snapshot(self) -> Snapshot:
        """Return all evidence at one settled moment.

        Raises
        ------
        Transient
            When Prometheus cannot be reached, or its answer cannot be relied on.
        """
        now = self._clock()
        if self._round is None or (self._round.done() and not self._is_fresh(now)):
            self._asked = now
            self._round = asyncio.create_task(self._ask(now))
        # Shielded: one rollout that is cancelled must not take the answer from the others.
        outcome = await asyncio.shield(self._round)
        if isinstance(outcome, Transient):
            raise Transient(outcome.reason, outcome.message)
        return outcome

    def _is_fresh(self, now: datetime) -> bool:
        age = (now - self._asked).total_seconds()
        return 0 <= age < self._settings.scrape_interval_seconds * _SHARED_INTERVALS

    async def _ask(self, now: datetime) -> Snapshot | Transient:
        settings = self._settings
        settled = timedelta(seconds=settings.scrape_interval_seconds * SETTLED_INTERVALS)
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                snapshot = await asyncio.to_thread(self._query_all, now - settled)
        except TimeoutError:
            return Transient(
                Failure.TIMEOUT,
                f"Prometheus at {self._host} did not answer within {settings.timeout_seconds:g} s",
            )
        except Transient as failure:
            return failure
        self._report(snapshot)
        return snapshot

    def _query_all(self, time: datetime) -> Snapshot:
        """Ask all queries, one after the other; runs in a thread."""
        if not self._at_work.acquire(blocking=False):
            raise Transient(
                Failure.TIMEOUT, f"Prometheus at {self._host} still owes an earlier answer"
            )
        try:
            with self._session() as session:
                return collect(time, self._answers(session, time))
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise Transient(
                Failure.TIMEOUT,
                f"Prometheus at {self._host} did not answer within "
                f"{self._settings.timeout_seconds:g} s",
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(
                Failure.UNREACHABLE,
                f"Prometheus at {self._host} cannot be reached: {_cause(error)}",
            ) from error
        finally:
            self._at_work.release()

    def _answers(self, session: GuardedSession, time: datetime) -> dict[str, list[Sample]]:
        settings = self._settings
        client = PrometheusConnect(
            url=settings.url.rstrip("/"),
            session=session,
            retry=urllib3.Retry(0),
            timeout=settings.timeout_seconds,
        )
        lookback = settings.scrape_interval_seconds * LOOKBACK_INTERVALS
        params = {
            "time": f"{time.timestamp():.3f}",
            "timeout": f"{max(1, round(settings.timeout_seconds * 1000))}ms",
            "lookback_delta": f"{max(1, round(lookback * 1000))}ms",
        }
        answers: dict[str, list[Sample]] = {}
        for family in (*SERVER_FAMILIES, *PROBE_FAMILIES):
            try:
                rows = client.custom_query(family.query, params=dict(params))
                answers[family.name] = _samples(rows)
            except _MALFORMED as error:
                raise Transient(
                    Failure.BAD_ANSWER,
                    f"what answers at {self._host} is not as Prometheus answers "
                    "(`prometheus.url` must be its root, without `/api/v1`)",
                ) from error
        return answers

    def _session(self) -> GuardedSession:
        ca_file = self._settings.ca_file
        if ca_file is not None and not ca_file.is_file():
            raise Transient(
                Failure.CREDENTIALS, f"there is no file {ca_file} (`prometheus.caFile`)"
            )
        return GuardedSession(
            token=self._token(),
            ca_file=None if ca_file is None else str(ca_file),
            seconds=self._settings.timeout_seconds,
        )

    def _token(self) -> str | None:
        path = self._settings.bearer_token_file
        if path is None:
            return None
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise Transient(
                Failure.CREDENTIALS,
                f"cannot read {path} (`prometheus.bearerTokenFile`): {_cause(error)}",
            ) from error
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            # Checked here because the HTTP library would put the token into its error message.
            raise Transient(
                Failure.CREDENTIALS, f"{path} (`prometheus.bearerTokenFile`) holds no token"
            )
        return token

    def _report(self, snapshot: Snapshot) -> None:
        """Log what cannot be used, once."""
        for key, problem in snapshot.unusable.items():
            if self._unusable.get(key) != problem:
                _log.warning("no evidence of %s", problem)
        self._unusable = snapshot.unusable


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Return the series of an instant vector.

    Raises
    ------
    AttributeError, LookupError, TypeError, ValueError
        When the answer is something else.
    """
    return [
        Sample({str(key): str(text) for key, text in row["metric"].items()}, float(row["value"][1]))
        for row in rows
    ]


def _cause(error: BaseException) -> str:
    """Return what the operating system or TLS said, without addresses that change each time."""
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, OSError) and following.strerror:
            return following.strerror
        following = following.__cause__ or following.__context__
    return type(error).__name__
