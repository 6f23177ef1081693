"""The server's metrics, as :mod:`imagegen.contract` names them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

from imagegen import contract
from imagegen.contract import OomPhase, Outcome

__all__ = ["ConsistentRegistry", "Served", "ServerMetrics", "Work"]

# They would double the series and say nothing that the pod does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ConsistentRegistry(CollectorRegistry):
    """A registry whose scrapes see an update of several series wholly or not at all."""

    def __init__(self) -> None:
        super().__init__(auto_describe=True)
        self.lock = threading.RLock()

    def collect(self) -> Iterable[Metric]:
        """Collect everything at one instant."""
        with self.lock:
            return list(super().collect())


@dataclass
class Work:
    """A request's share of the engine's time, failed attempts included; times in seconds."""

    busy_seconds: float = 0.0
    wasted: dict[str, float] = field(default_factory=dict)
    """What of that time went into attempts that made nothing, by reason."""

    def took(self, seconds: float, *, wasted: str | None = None) -> None:
        """Add an attempt, and the reason if it made nothing."""
        self.busy_seconds += seconds
        if wasted is not None:
            self.wasted[wasted] = self.wasted.get(wasted, 0.0) + seconds


@dataclass(frozen=True)
class Served:
    """A request that was answered with pictures; times in seconds."""

    width: int
    height: int
    steps: int
    """0 if the model does not tell."""
    images: int
    request_class: str
    duration_seconds: float
    postprocess_seconds: float


class ServerMetrics:
    """All series of one server process.

    Parameters
    ----------
    model, revision
        Values of the common labels.
    edges
        Bucket edges of request and queue durations in seconds, gate limits included.
    """

    def __init__(self, *, model: str, revision: str, edges: Sequence[float]) -> None:
        self.registry = ConsistentRegistry()
        self._common = (model, revision)
        self._edges = tuple(edges)
        self._device: str | None = None
        self._define_requests()
        self._define_work()
        self._define_state()
        ProcessCollector(namespace="imagegen", registry=self.registry)

    # -- definitions -------------------------------------------------------------------------------
    def _counter(self, name: str, text: str, labels: Mapping[str, Iterable[object]]) -> Counter:
        names = (*contract.COMMON_LABELS, *labels)
        metric = Counter(name, text, names, registry=self.registry)
        for values in product(*labels.values()):
            metric.labels(*self._common, *values)
        return metric

    def _histogram(
        self, name: str, text: str, edges: Sequence[float], labels: Mapping[str, Iterable[object]]
    ) -> Histogram:
        names = (*contract.COMMON_LABELS, *labels)
        metric = Histogram(name, text, names, buckets=edges, registry=self.registry)
        for values in product(*labels.values()):
            metric.labels(*self._common, *values)
        return metric

    def _summary(self, name: str, text: str, labels: Mapping[str, Iterable[object]]) -> Summary:
        names = (*contract.COMMON_LABELS, *labels)
        metric = Summary(name, text, names, registry=self.registry)
        for values in product(*labels.values()):
            metric.labels(*self._common, *values)
        return metric

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(name, text, contract.COMMON_LABELS, registry=self.registry)
        return gauge.labels(*self._common)

    def _define_requests(self) -> None:
        by_size = {contract.LABEL_SIZE_CLASS: contract.SIZE_CLASSES}
        by_class = {contract.LABEL_REQUEST_CLASS: contract.REQUEST_CLASSES}
        self._requests = self._counter(
            contract.REQUESTS_TOTAL,
            "Requests that ended.",
            {contract.LABEL_OUTCOME: (), contract.LABEL_CODE: ()},
        )
        for outcome, codes in contract.OUTCOME_CODES.items():
            for code in codes:
                self._requests.labels(*self._common, outcome, code)
        self._duration = self._histogram(
            contract.REQUEST_DURATION_SECONDS,
            "Arrival to answer of served requests, the queue included.",
            self._edges,
            by_size,
        )
        self._queue_duration = self._histogram(
            contract.QUEUE_DURATION_SECONDS, "Wait for the worker.", self._edges, {}
        )
        self._images = self._counter(contract.IMAGES_TOTAL, "Images delivered.", by_size)
        self._megapixels = self._counter(
            contract.MEGAPIXELS_TOTAL, "Megapixels delivered.", by_size
        )
        self._denoise_steps = self._counter(
            contract.DENOISE_STEPS_TOTAL, "Images delivered times their steps.", by_size
        )
        moment = contract.REQUEST_LOG_SECONDS_SUM.removesuffix("_sum")
        self._log_seconds = self._summary(
            moment, "Natural logarithm of milliseconds per served request.", by_class
        )
        squares = contract.REQUEST_LOG_SECONDS_SQUARES_SUM.removesuffix("_sum")
        self._log_squares = self._summary(squares, "Its square.", by_class)
        gpu = contract.REQUEST_GPU_SECONDS_SUM.removesuffix("_sum")
        self._gpu_seconds = self._summary(gpu, "Busy seconds per served request.", {})
        gpu_squares = contract.REQUEST_GPU_SECONDS_SQUARES_SUM.removesuffix("_sum")
        self._gpu_squares = self._summary(gpu_squares, "Their square.", {})

    def _define_work(self) -> None:
        self._stages = self._histogram(
            contract.STAGE_DURATION_SECONDS,
            "Stages of a batch.",
            contract.STAGE_EDGES,
            {"stage": contract.STAGES},
        )
        self._steps = self._histogram(
            contract.STEP_DURATION_SECONDS, "Denoising steps of a batch.", contract.STEP_EDGES, {}
        )
        self._batch_size = self._histogram(
            contract.BATCH_SIZE, "Images per engine call.", contract.BATCH_SIZE_EDGES, {}
        )
        self._oom = self._counter(
            contract.OOM_TOTAL,
            "Device or allocator out of memory.",
            {
                contract.LABEL_PHASE: contract.OOM_PHASES,
                contract.LABEL_RECOVERED: contract.RECOVERED,
            },
        )
        self._splits = self._counter(
            contract.BATCH_SPLITS_TOTAL,
            "Batches split in halves.",
            {"reason": contract.SPLIT_REASONS},
        )
        self._busy = self._counter(
            contract.GPU_BUSY_SECONDS_TOTAL,
            "Time the worker held the engine, failed attempts included.",
            {"device": ()},
        )
        self._wasted = self._counter(
            contract.GPU_WASTED_SECONDS_TOTAL,
            "Busy time that brought no image, as far as that is known when a request ends.",
            {"reason": contract.WASTE_REASONS},
        )
        self._watchdog = self._counter(
            contract.WATCHDOG_REJECTIONS_TOTAL,
            "Pictures that were not delivered because they are broken.",
            {"check": contract.WATCHDOG_CHECKS},
        )

    def _define_state(self) -> None:
        self.queue_depth = self._gauge(contract.QUEUE_DEPTH, "Requests that wait.")
        self.queue_capacity = self._gauge(contract.QUEUE_CAPACITY, "Requests that may wait.")
        self.inflight = self._gauge(contract.INFLIGHT_REQUESTS, "Requests not yet answered.")
        self.load_seconds = self._gauge(contract.MODEL_LOAD_SECONDS, "Time to load the model.")
        self.warmup_seconds = self._gauge(contract.WARMUP_SECONDS, "Time of the warm-up.")
        self.ready = self._gauge(contract.READY, "1 while the server accepts work.")
        self._vram = Gauge(
            contract.VRAM_BYTES,
            "Device memory.",
            (*contract.COMMON_LABELS, "kind"),
            registry=self.registry,
        )
        self._info = Info(
            contract.BUILD_INFO.removesuffix("_info"),
            "What pictures depend on.",
            contract.COMMON_LABELS,
            registry=self.registry,
        )

    # -- updates -----------------------------------------------------------------------------------
    def engine_loaded(
        self, *, device: str, description: dict[str, str], memory: Callable[[], dict[str, int]]
    ) -> None:
        """Take note of the engine that was loaded; `memory` is asked at every scrape."""
        with self.registry.lock:
            self._device = device
            self._busy.labels(*self._common, device)
            self._info.labels(*self._common).info(description)
            for kind in memory():
                gauge = self._vram.labels(*self._common, kind)
                gauge.set_function(lambda kind=kind: memory()[kind])  # type: ignore[misc]

    def refused(self, outcome: Outcome, status: int) -> None:
        """Count a request that was refused before the worker saw it."""
        self._requests.labels(*self._common, outcome, status).inc()

    def waited(self, seconds: float) -> None:
        """Note how long a request waited until the worker took it."""
        self._queue_duration.labels(*self._common).observe(seconds)

    def ran_out_of_memory(self, phase: OomPhase, *, recovered: bool) -> None:
        """Count a lack of memory; `recovered` if its pictures were made all the same."""
        self._oom.labels(*self._common, phase, str(recovered).lower()).inc()

    def split(self, reason: str) -> None:
        """Count a batch that was split in halves."""
        self._splits.labels(*self._common, reason).inc()

    def made_batch(self, size: int, stages: Mapping[str, float], steps: Iterable[float]) -> None:
        """Note a batch that was made, and its seconds per stage and per step."""
        with self.registry.lock:
            self._batch_size.labels(*self._common).observe(size)
            for stage, seconds in stages.items():
                self._stages.labels(*self._common, stage).observe(seconds)
            for seconds in steps:
                self._steps.labels(*self._common).observe(seconds)

    def rejected(self, check: str) -> None:
        """Count a picture that the watchdog kept back."""
        self._watchdog.labels(*self._common, check).inc()

    def failed(self, outcome: Outcome, status: int, work: Work) -> None:
        """Count a request that was accepted and that got an error."""
        with self.registry.lock:
            self._requests.labels(*self._common, outcome, status).inc()
            self.wasted(
                work.busy_seconds, outcome if outcome in contract.WASTE_REASONS else "error"
            )

    def wasted(self, seconds: float, reason: str) -> None:
        """Count busy time that brought no image."""
        with self.registry.lock:
            self._worked(seconds)
            self._wasted.labels(*self._common, reason).inc(seconds)

    def served(self, served: Served, work: Work) -> None:
        """Count a request that was answered with pictures."""
        size = contract.size_class(served.width, served.height)
        log_seconds = contract.log_duration(served.duration_seconds)
        with self.registry.lock:
            self._requests.labels(*self._common, Outcome.OK, 200).inc()
            self._worked(work.busy_seconds)
            for reason, seconds in work.wasted.items():
                self._wasted.labels(*self._common, reason).inc(seconds)
            self._duration.labels(*self._common, size).observe(served.duration_seconds)
            self._images.labels(*self._common, size).inc(served.images)
            pixels = served.width * served.height * served.images
            self._megapixels.labels(*self._common, size).inc(pixels / 1e6)
            self._denoise_steps.labels(*self._common, size).inc(served.steps * served.images)
            self._log_seconds.labels(*self._common, served.request_class).observe(log_seconds)
            self._log_squares.labels(*self._common, served.request_class).observe(log_seconds**2)
            self._gpu_seconds.labels(*self._common).observe(work.busy_seconds)
            self._gpu_squares.labels(*self._common).observe(work.busy_seconds**2)
            stage = self._stages.labels(*self._common, "postprocess")
            stage.observe(served.postprocess_seconds)

    def _worked(self, seconds: float) -> None:
        if self._device is not None and seconds:
            self._busy.labels(*self._common, self._device).inc(seconds)
