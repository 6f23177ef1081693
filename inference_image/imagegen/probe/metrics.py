"""The probe's metrics, as :mod:`imagegen.contract` names them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from imagegen import contract
from imagegen.contract import Arm, ProbeOutcome

__all__ = ["ProbeMetrics"]

# They would double the series and say nothing that the pod does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ProbeMetrics:
    """All series of one probe; both arms' counters exist also when there is no stable arm."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        arm = [contract.LABEL_ARM]
        self._requests = Counter(
            contract.PROBE_REQUESTS_TOTAL,
            "Requests of the probe that ended, repeats included.",
            [contract.LABEL_ARM, contract.LABEL_OUTCOME],
            registry=self.registry,
        )
        self._duration = Histogram(
            contract.PROBE_REQUEST_DURATION_SECONDS,
            "Scheduled moment to answer of the load phase's successes.",
            arm,
            buckets=contract.LATENCY_EDGES,
            registry=self.registry,
        )
        self._skipped = Counter(
            contract.PROBE_SKIPPED_TOTAL,
            "Requests of the load phase that were not sent because too many were open.",
            arm,
            registry=self.registry,
        )
        self._prompts = Counter(
            contract.PROBE_REPEAT_PROMPTS_TOTAL,
            "Prompts whose repeats were all measured.",
            arm,
            registry=self.registry,
        )
        self._psd = Gauge(
            contract.PROBE_REPEAT_PSD,
            "Largest pixel stability deviation of a prompt's repeats so far.",
            arm,
            registry=self.registry,
        )
        self._loading = Gauge(
            contract.PROBE_LOADING,
            "1 once the load phase has begun.",
            registry=self.registry,
        )
        self._done = Gauge(
            contract.PROBE_DONE, "1 when all phases have ended.", registry=self.registry
        )
        self._largest: dict[Arm, float] = {}
        for each in contract.ARMS:
            self._duration.labels(each)
            self._skipped.labels(each)
            self._prompts.labels(each)
            for outcome in ProbeOutcome:
                self._requests.labels(each, outcome)

    def ended(self, arm: Arm, outcome: ProbeOutcome) -> None:
        """Count a request."""
        self._requests.labels(arm, outcome).inc()

    def took(self, arm: Arm, seconds: float) -> None:
        """Note the duration of a success of the load phase."""
        self._duration.labels(arm).observe(seconds)

    def skipped(self, arm: Arm) -> None:
        """Count a request that was not sent."""
        self._skipped.labels(arm).inc()

    def repeated(self, arm: Arm, deviations: Sequence[float]) -> None:
        """Note the deviations of prompts whose repeats were all measured."""
        for deviation in deviations:
            self._largest[arm] = max(self._largest.get(arm, 0.0), deviation)
            # The gauge first: whoever sees the prompt counted sees its deviation too.
            self._psd.labels(arm).set(self._largest[arm])
            self._prompts.labels(arm).inc()

    def largest(self, arm: Arm) -> float | None:
        """Give the largest deviation so far; None before the first."""
        return self._largest.get(arm)

    def loading(self) -> None:
        """Say that the load phase begins."""
        self._loading.set(1)

    def done(self) -> None:
        """Say that all phases have ended."""
        self._done.set(1)
