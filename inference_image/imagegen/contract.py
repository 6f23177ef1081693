"""The metric contract: names, label values, bucket edges and exit codes.

The server and the probe expose these series; the operator, the chart and the dashboards read them.
Standard library only, so that the operator can import it without the inference dependencies.

Rules that hold for all of them
-------------------------------
* Seconds and bytes. Counters only grow, and every label combination exists at 0 from the start.
* One finished request changes all its series at once: a scrape sees all of them or none.
* The server's series carry the labels ``model`` and ``revision``; the labels of the pod are added
  by Prometheus' relabelling.
* Warm-up is in none of the request, image and busy-time series.
* Process memory and file handles come from the client library, with the prefix ``imagegen_``.
* Durations and moments are of *served* requests only (outcome ``ok``), from the arrival of the
  request to its answer being ready, the wait in the queue included. A refused or failed request
  is an outcome, never a fast answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Final

HTTP_PORT: Final = 8000
METRICS_PORT: Final = 9000
LIVE_PATH: Final = "/v2/health/live"
READY_PATH: Final = "/v2/health/ready"
METRICS_PATH: Final = "/metrics"

BATCH_HEADER: Final = "X-Imagegen-Batch"
"""A request that carries it runs in batches of exactly so many pictures, never with pictures of
other requests: what the same prompt and seed give is then the same, whatever the load."""

TIMEOUT_HEADER: Final = "X-Imagegen-Timeout"
"""Seconds that the client is going to wait; at most, and by default, as long as the server does."""

REQUEST_TIMEOUT_SECONDS: Final = 300.0
"""After this long the server gives a request up, unless it is told otherwise."""

PROBE_TIMEOUT_SECONDS: Final = REQUEST_TIMEOUT_SECONDS + 30.0
"""The probe waits longer than the server does. A request that is too slow then ends as the server's
``timeout``, which is its fault; if the probe hung up first it would be ``cancelled``, which is
nobody's, and the slowest requests would be missing from the evidence."""

# -- the server's series ---------------------------------------------------------------------------
REQUESTS_TOTAL: Final = "imagegen_requests_total"  # outcome, code
REQUEST_DURATION_SECONDS: Final = "imagegen_request_duration_seconds"  # size_class; histogram
REQUEST_DURATION_BUCKET: Final = "imagegen_request_duration_seconds_bucket"
REQUEST_DURATION_COUNT: Final = "imagegen_request_duration_seconds_count"
REQUEST_DURATION_SUM: Final = "imagegen_request_duration_seconds_sum"
QUEUE_DURATION_SECONDS: Final = "imagegen_queue_duration_seconds"  # histogram
STAGE_DURATION_SECONDS: Final = "imagegen_stage_duration_seconds"  # stage; histogram, per batch
STEP_DURATION_SECONDS: Final = "imagegen_step_duration_seconds"  # histogram, per batch and step
IMAGES_TOTAL: Final = "imagegen_images_total"  # size_class; delivered images
MEGAPIXELS_TOTAL: Final = "imagegen_megapixels_total"  # size_class
DENOISE_STEPS_TOTAL: Final = "imagegen_denoise_steps_total"  # size_class; images x steps
BATCH_SIZE: Final = "imagegen_batch_size"  # histogram
QUEUE_DEPTH: Final = "imagegen_queue_depth"
QUEUE_CAPACITY: Final = "imagegen_queue_capacity"
INFLIGHT_REQUESTS: Final = "imagegen_inflight_requests"
OOM_TOTAL: Final = "imagegen_oom_total"  # phase, recovered
BATCH_SPLITS_TOTAL: Final = "imagegen_batch_splits_total"  # reason
GPU_BUSY_SECONDS_TOTAL: Final = "imagegen_gpu_busy_seconds_total"  # device
GPU_WASTED_SECONDS_TOTAL: Final = "imagegen_gpu_wasted_seconds_total"  # reason
# A batch's busy time is shared over its requests by pictures, and counted when a request ends:
# what requests took, served and failed ones, adds up to the busy time.
REQUEST_GPU_SECONDS_SUM: Final = "imagegen_request_gpu_seconds_sum"
REQUEST_GPU_SECONDS_COUNT: Final = "imagegen_request_gpu_seconds_count"
REQUEST_GPU_SECONDS_SQUARES_SUM: Final = "imagegen_request_gpu_seconds_squares_sum"
REQUEST_LOG_SECONDS_SUM: Final = "imagegen_request_log_seconds_sum"  # request_class
REQUEST_LOG_SECONDS_SQUARES_SUM: Final = "imagegen_request_log_seconds_squares_sum"
REQUEST_LOG_SECONDS_COUNT: Final = "imagegen_request_log_seconds_count"
VRAM_BYTES: Final = "imagegen_vram_bytes"  # kind; absent on a CPU
PROCESS_MEMORY_BYTES: Final = "imagegen_process_resident_memory_bytes"  # without common labels
WATCHDOG_REJECTIONS_TOTAL: Final = "imagegen_watchdog_rejections_total"  # check
MODEL_LOAD_SECONDS: Final = "imagegen_model_load_seconds"
WARMUP_SECONDS: Final = "imagegen_warmup_seconds"
READY: Final = "imagegen_ready"  # 1 while the server accepts work
BUILD_INFO: Final = "imagegen_build_info"  # what pictures depend on; cuda, driver: empty on a CPU

# -- the probe's series ----------------------------------------------------------------------------
PROBE_REQUESTS_TOTAL: Final = "imagegen_probe_requests_total"  # arm, outcome; load and repeats
PROBE_REQUEST_DURATION_SECONDS: Final = "imagegen_probe_request_duration_seconds"  # arm; load only
PROBE_REQUEST_DURATION_COUNT: Final = "imagegen_probe_request_duration_seconds_count"
PROBE_SKIPPED_TOTAL: Final = "imagegen_probe_skipped_total"  # arm; load never sent: too many open
PROBE_REPEAT_PSD: Final = (
    "imagegen_probe_repeat_psd"  # arm; largest so far, absent before the first
)
PROBE_REPEAT_PROMPTS_TOTAL: Final = "imagegen_probe_repeat_prompts_total"  # arm
PROBE_LOADING: Final = "imagegen_probe_loading"  # 0 at first, 1 once the load phase has begun
PROBE_DONE: Final = "imagegen_probe_done"  # 1 when both phases have ended

# -- labels ----------------------------------------------------------------------------------------
COMMON_LABELS: Final = ("model", "revision")
LABEL_ARM: Final = "arm"
LABEL_CODE: Final = "code"
LABEL_OUTCOME: Final = "outcome"
LABEL_PHASE: Final = "phase"
LABEL_RECOVERED: Final = "recovered"
LABEL_REQUEST_CLASS: Final = "request_class"
LABEL_SIZE_CLASS: Final = "size_class"


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    INVALID = "invalid"
    BUSY = "busy"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    WATCHDOG = "watchdog"
    ERROR = "error"


OUTCOME_CODES: Final[dict[Outcome, tuple[int, ...]]] = {
    Outcome.OK: (200,),
    Outcome.INVALID: (400, 408, 413, 415),
    Outcome.BUSY: (429, 503),  # queue full or too long for the deadline; not ready or draining
    Outcome.TIMEOUT: (504,),
    Outcome.CANCELLED: (499,),  # the client went away; nobody sees this code
    Outcome.OOM: (503,),
    Outcome.WATCHDOG: (500,),
    Outcome.ERROR: (500, 503),  # 503: the device failed before it was the request's turn
}
"""The HTTP status codes that each outcome can have: all pairs exist at 0 from the start."""

FAULT_OUTCOMES: Final = (Outcome.TIMEOUT, Outcome.OOM, Outcome.WATCHDOG, Outcome.ERROR)
"""Outcomes that are the server's own fault; the rest are the client's or the load's."""


class OomPhase(StrEnum):
    """What the server was doing when the device's memory ran out."""

    LOAD = "load"
    WARMUP = "warmup"
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"


class Arm(StrEnum):
    """The two servers that a probe compares."""

    STABLE = "stable"
    CANDIDATE = "candidate"


class ProbeOutcome(StrEnum):
    """How a request of the probe ended, seen from the client."""

    OK = "ok"
    ERROR = "error"


OOM_PHASES: Final = tuple(OomPhase)
ARMS: Final = tuple(Arm)
RECOVERED: Final = ("true", "false")
STAGES: Final = ("encode", "denoise", "decode", "postprocess")
SPLIT_REASONS: Final = ("oom", "error")
WASTE_REASONS: Final = ("oom", "cancelled", "timeout", "error", "watchdog")
WATCHDOG_CHECKS: Final = ("wrong_size", "non_finite", "flat", "clipped", "noise_like")
VRAM_KINDS: Final = (
    "allocated",
    "reserved",
    "peak_allocated",
    "peak_reserved",
    "device_used",
    "device_total",
)

# -- edges -----------------------------------------------------------------------------------------
LATENCY_EDGES: Final[tuple[float, ...]] = (
    *(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0),
    *(48.0, 64.0, 96.0, 128.0),
)
"""Default bucket edges of request and queue durations, in seconds; limits of gates are added."""

STEP_EDGES: Final[tuple[float, ...]] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
STAGE_EDGES: Final[tuple[float, ...]] = (0.005, 0.01, 0.02, 0.05, *LATENCY_EDGES[1:])
BATCH_SIZE_EDGES: Final[tuple[float, ...]] = (1.0, 2.0, 4.0, 8.0, 16.0)


def latency_edges(extra: Iterable[float] = ()) -> tuple[float, ...]:
    """Merge the limits of gates into the default edges.

    Prometheus writes an edge of 1 s as ``le="1.0"``: compare edges as numbers, never as text.

    Parameters
    ----------
    extra
        Further edges in seconds, such as the limits of latency gates.

    Returns
    -------
    tuple of float
        All edges, ascending and without duplicates; the edge at infinity is not among them.

    Raises
    ------
    ValueError
        If an edge is not a positive finite number.
    """
    edges = set(LATENCY_EDGES)
    for edge in extra:
        if not (math.isfinite(edge) and edge > 0):
            raise ValueError(f"a latency edge must be a positive number of seconds, not {edge}")
        edges.add(float(edge))
    return tuple(sorted(edges))


# -- classes ---------------------------------------------------------------------------------------
_SIZE_LIMITS: Final = (
    ("le_512", 512 * 512),
    ("le_768", 768 * 768),
    ("le_1024", 1024 * 1024),
    ("le_1536", 1536 * 1536),
)
_STEPS_LIMITS: Final = (("le_10", 10), ("le_30", 30))

SIZE_CLASSES: Final = (*(name for name, _ in _SIZE_LIMITS), "larger")
STEPS_CLASSES: Final = (*(name for name, _ in _STEPS_LIMITS), "larger")
IMAGES_CLASSES: Final = ("one", "several")
_DEFAULT: Final = "default"


def size_class(width: int, height: int) -> str:
    """Name the class of a picture's size by its area: ``le_512`` holds up to 512 x 512 pixels."""
    pixels = width * height
    return next((name for name, limit in _SIZE_LIMITS if pixels <= limit), "larger")


def _class_name(size: str, steps: str, images: str) -> str:
    return f"size_{size}.steps_{steps}.images_{images}"


def request_class(size: tuple[int, int] | None, steps: int | None, images: int) -> str:
    """Name the stratum of a request by what the *user* asked, not by what the server made of it.

    Two revisions with other defaults put the same request in the same class: that a revision takes
    twice the steps when none are asked for is exactly what a comparison must see.

    Parameters
    ----------
    size
        Width and height that the request named, in pixels; None when it left them out.
    steps
        Denoising steps that the request named; None when it left them out.
    images
        Number of images asked for.
    """
    size_part = _DEFAULT if size is None else size_class(*size)
    steps_part = _DEFAULT
    if steps is not None:
        steps_part = next((name for name, limit in _STEPS_LIMITS if steps <= limit), "larger")
    return _class_name(size_part, steps_part, "one" if images == 1 else "several")


REQUEST_CLASSES: Final = tuple(
    _class_name(size, steps, images)
    for size in (_DEFAULT, *SIZE_CLASSES)
    for steps in (_DEFAULT, *STEPS_CLASSES)
    for images in IMAGES_CLASSES
)
"""All values of the label ``request_class``."""

LOG_UNIT_SECONDS: Final = 0.001


def log_duration(seconds: float) -> float:
    """Give the term that a request adds to the log moments: ``ln(max(seconds, 1 ms) / 1 ms)``.

    The unit is a millisecond, so that terms are never negative and the sums are true counters. A
    difference of means does not depend on the unit, and variances do not either.
    """
    return math.log(max(seconds, LOG_UNIT_SECONDS) / LOG_UNIT_SECONDS)


# -- how the server ends ---------------------------------------------------------------------------
class ExitCode(IntEnum):
    """Exit codes of ``imagegen serve``."""

    DRAINED = 0  # asked to stop, and all accepted work was finished
    CRASHED = 1
    USAGE = 2
    STARTUP_FAILED = 3  # /dev/termination-log says why: `<StartupFailureCode>: <message>`
    DRAIN_DEADLINE = 4  # asked to stop; some accepted work was given up
    OUT_OF_MEMORY = 5  # not even one picture of the default size fits any more


class StartupFailureCode(StrEnum):
    """First word of the termination message when the server could not start, or not go on."""

    MODEL_INVALID = "ModelInvalid"
    CUDA_OOM = "CudaOOM"  # the accelerator's memory
    HOST_OOM = "HostOOM"  # the host allocator said no; a cgroup's kill leaves no message at all
    WARMUP_FAILED = "WarmupFailed"
    PORT_UNAVAILABLE = "PortUnavailable"
    DEVICE_FAILED = "DeviceFailed"  # the accelerator needs a new process


TERMINATION_LOG: Final = "/dev/termination-log"
