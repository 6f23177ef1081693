"""What the parts of one server process share."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator

from imagegen.contract import Outcome
from imagegen.engines.base import Engine, GenerationSettings
from imagegen.errors import RequestRefusedError
from imagegen.server.admission import Admission, Bounds
from imagegen.server.body import Bodies
from imagegen.server.costs import CostModel
from imagegen.server.jobs import Job, draining
from imagegen.server.metrics import ServerMetrics
from imagegen.server.oom import MemoryLimits
from imagegen.server.settings import ServeSettings
from imagegen.server.validation import EngineRules, RequestRules
from imagegen.server.worker import Worker

__all__ = ["ServerState", "rules_for"]


def rules_for(engine: Engine, settings: ServeSettings) -> RequestRules:
    """Join what is declared and what the loaded model can do."""
    return RequestRules(
        model_name=settings.model_name,
        defaults=settings.defaults,
        limits=settings.limits,
        engine=EngineRules.of(engine),
    )


class ServerState:
    """Whether requests are welcome, and by which rules.

    A server starts not ready, opens once with the rules of the loaded model, and closes once.
    """

    def __init__(self, settings: ServeSettings, metrics: ServerMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        limits = settings.limits
        self.costs = CostModel()
        self.memory_limits = MemoryLimits(limits.max_batch_size)
        self.bodies = Bodies(limits.max_bodies_bytes, ordinary=limits.max_body_bytes)
        self.admission = Admission(
            Bounds(
                requests=settings.queue_capacity,
                seconds=settings.queue_seconds or settings.request_timeout_seconds,
                window_seconds=settings.batch_window_seconds,
            ),
            costs=self.costs,
            limits=self.memory_limits,
        )
        self.scheduler = ""
        """Name of the sampler of requests that ask for none."""
        self._lock = threading.Lock()
        self._rules: RequestRules | None = None
        self._worker: Worker | None = None
        self._hung_seconds = settings.request_timeout_seconds
        self._draining = False
        self._ailing = False
        self._open_requests = 0
        self._accepted_requests = 0
        self._arriving: dict[object, Callable[[], object]] = {}
        metrics.queue_capacity.set(settings.queue_capacity)
        metrics.queue_depth.set_function(self.admission.depth)
        metrics.inflight.set_function(lambda: self._open_requests)
        metrics.ready.set_function(lambda: float(self.ready))

    # -- the life of the server --------------------------------------------------------------------
    def open(self, rules: RequestRules, worker: Worker, *, scheduler: str) -> None:
        """Begin to take requests.

        Parameters
        ----------
        rules
            What a request may ask for.
        worker
            Serves the queue.
        scheduler
            Name of the sampler of requests that ask for none.
        """
        self._hung_seconds = max(self._hung_seconds, 3 * self._longest_batch(rules))
        self.scheduler = scheduler
        self._worker = worker
        self._rules = rules

    def close(self) -> None:
        """Take no new requests, nor those still on their way; accepted ones are still served."""
        with self._lock:
            self._draining = True
            arriving = list(self._arriving.values())
        self.admission.close()
        for let_go in arriving:
            let_go()

    def set_ailing(self, ailing: bool) -> None:  # noqa: FBT001 - a callback with one argument
        """Take no new requests while it is checked whether the device can go on."""
        self._ailing = ailing

    def give_up(self, refusal: RequestRefusedError) -> int:
        """Answer all accepted requests with an error; give their number."""
        jobs = self.admission.give_up(refusal)
        for job in jobs:
            self.metrics.failed(refusal.outcome, refusal.status, job.work)
        return len(jobs)

    # -- probes ------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return self._rules is not None and not self._draining and not self._ailing

    @property
    def alive(self) -> bool:
        """Whether the worker gets on with its work, however much there is of it.

        It does not when a step takes longer than any batch may: requests have a deadline, and when
        those of a batch have passed, it is stopped at its next step.
        """
        worker = self._worker
        return worker is None or worker.pulse.age() < self._hung_seconds

    @property
    def current_rules(self) -> RequestRules | None:
        """The rules that requests are checked by, once there are any."""
        return self._rules

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """Fields of requests that have no effect on the model's pictures."""
        return () if self._rules is None else self._rules.engine.unused_fields

    def rules(self) -> RequestRules:
        """Give the rules that requests are checked by.

        Raises
        ------
        RequestRefusedError
            Status 503 while the server is not ready.
        """
        if self._draining:
            raise draining()
        if self._rules is None:
            raise _not_ready("the model is being loaded", retry_after=5)
        if self._ailing:
            raise _not_ready("the device's memory is full", retry_after=5)
        return self._rules

    # -- requests ----------------------------------------------------------------------------------
    def request_began(self) -> None:
        """Count a request as open."""
        self._change_open(1)

    def request_ended(self) -> None:
        """Count a request as answered."""
        self._change_open(-1)

    @property
    def open_requests(self) -> int:
        """Requests that are not answered yet."""
        return self._open_requests

    @property
    def accepted_requests(self) -> int:
        """Those of them that have arrived whole and were not refused."""
        return self._accepted_requests

    def accept(self, job: Job) -> None:
        """Queue a request, which then has to be told its end.

        Raises
        ------
        RequestRefusedError
            As :meth:`Admission.put` does.
        """
        with self._lock:
            self._accepted_requests += 1
        try:
            self.admission.put(job)
        except RequestRefusedError:
            self.accepted_ended()
            raise

    def accepted_ended(self) -> None:
        """Note that there is an answer to an accepted request, or that nobody waits for it."""
        with self._lock:
            self._accepted_requests -= 1

    @contextlib.contextmanager
    def arriving(self, let_go: Callable[[], object]) -> Iterator[None]:
        """Note that a request's body is on its way.

        Parameters
        ----------
        let_go
            Called, from any thread, when the server closes meanwhile.

        Raises
        ------
        RequestRefusedError
            Status 503 if it has closed.
        """
        key = object()
        with self._lock:
            if self._draining:
                raise draining()
            self._arriving[key] = let_go
        try:
            yield
        finally:
            with self._lock:
                del self._arriving[key]

    def _change_open(self, change: int) -> None:
        with self._lock:
            self._open_requests += change
            self.admission.open_changed(self._open_requests)

    def _longest_batch(self, rules: RequestRules) -> float:
        """Estimate the seconds of the largest batch that requests may make up."""
        side = math.isqrt(rules.limits.max_pixels)
        largest = GenerationSettings(side, side, rules.max_steps, rules.defaults.guidance_scale)
        return self.costs.estimate(largest, rules.limits.max_batch_size)


def _not_ready(why: str, *, retry_after: int) -> RequestRefusedError:
    return RequestRefusedError(
        outcome=Outcome.BUSY,
        status=503,
        code="not_ready",
        message=f"{why}; try again later",
        retry_after=retry_after,
    )
