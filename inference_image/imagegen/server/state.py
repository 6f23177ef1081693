"""What the parts of one server process share."""

from __future__ import annotations

import threading

from imagegen.contract import Outcome
from imagegen.engines.base import Engine
from imagegen.errors import RequestRefusedError
from imagegen.server.admission import Admission, draining
from imagegen.server.metrics import ServerMetrics
from imagegen.server.settings import ServeSettings
from imagegen.server.validation import EngineRules, RequestRules

__all__ = ["ServerState", "rules_for"]


def rules_for(engine: Engine, settings: ServeSettings) -> RequestRules:
    """Join what is declared and what the loaded model can do."""
    return RequestRules(
        model_name=settings.model_name,
        defaults=settings.defaults,
        limits=settings.limits,
        engine=EngineRules(
            size_multiple=engine.size_multiple,
            max_side=engine.max_side,
            takes_negative_prompt=engine.takes_negative_prompt,
        ),
    )


class ServerState:
    """Whether requests are welcome, and by which rules.

    A server starts not ready, opens once with the rules of the loaded model, and closes once.
    """

    def __init__(self, settings: ServeSettings, metrics: ServerMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.admission = Admission(settings.queue_capacity)
        self._lock = threading.Lock()
        self._rules: RequestRules | None = None
        self._draining = False
        self._open_requests = 0
        metrics.queue_capacity.set(settings.queue_capacity)
        metrics.queue_depth.set_function(self.admission.depth)
        metrics.inflight.set_function(lambda: self._open_requests)
        metrics.ready.set_function(lambda: float(self.ready))

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return self._rules is not None and not self._draining

    def open(self, rules: RequestRules) -> None:
        """Begin to take requests."""
        self._rules = rules

    def close(self) -> None:
        """Take no new requests; accepted ones are still served."""
        self._draining = True
        self.admission.close()

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
            raise RequestRefusedError(
                outcome=Outcome.BUSY,
                status=503,
                code="not_ready",
                message="the model is being loaded; try again later",
                retry_after=5,
            )
        return self._rules

    def request_began(self) -> None:
        """Count a request as open."""
        with self._lock:
            self._open_requests += 1

    def request_ended(self) -> None:
        """Count a request as answered."""
        with self._lock:
            self._open_requests -= 1

    @property
    def open_requests(self) -> int:
        """Requests that are not answered yet."""
        return self._open_requests
