"""Synthetic traffic of an image-generation service, both arms at once.

Requests of several classes arrive in bursts. Log latency is the class's level, plus what the
whole service goes through (bursts, drift: common to both arms), plus a residual that remembers
the request before of its class, because users repeat themselves. Classes are modelled on the
published facts of a production Stable Diffusion service (Alibaba GenTD26): text to image has a
median of 19 s, a 95th percentile of 36 s and a log-deviation of 0.39; with one adapter 41 s, and
0.5 of a residual returns in the next request of the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

__all__ = ["STUDIO", "Mix", "RequestClass", "Traffic", "generate", "residuals"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RequestClass:
    """One class of requests that cost alike."""

    name: str
    weight: float
    """Share of the requests."""

    median: float
    """Seconds."""

    log_deviation: float
    correlation: float
    """Between residuals of two consecutive requests of the class."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What arrives, and what the service goes through."""

    classes: tuple[RequestClass, ...]
    requests_per_tick: float = 5.0
    """Mean arrivals at both arms together in one tick of the operator's loop, outside bursts."""

    burst_factor: float = 3.0
    """How many times more requests arrive in a burst."""

    burst_slowdown: float = 0.10
    """How much slower, in log seconds, both arms are in a burst."""

    burst_begins: float = 0.02
    """Probability that a burst begins in a tick."""

    burst_ends: float = 0.10
    drift: float = 0.05
    """Deviation of the slow drift of log latency that both arms share."""

    same_class: float = 0.25
    """Probability that a request is of the class of the one before for that reason alone."""


STUDIO: Final = Mix(
    (
        RequestClass("image to image", 0.15, 12.0, 0.25, 0.20),
        RequestClass("text to image", 0.55, 19.0, 0.34, 0.14),
        RequestClass("with adapter", 0.18, 41.0, 0.53, 0.50),
        RequestClass("four images", 0.12, 48.0, 0.35, 0.20),
    )
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of many runs in order of arrival; all arrays are runs by requests."""

    tick: Integers
    """Tick in which the request was answered."""

    request_class: Integers
    log_seconds: Floats
    """Log latency as stable would answer."""

    candidate: NDArray[np.bool_]
    """Whether the candidate answered it."""

    classes: int
    """Number of classes."""


def generate(
    mix: Mix, *, runs: int, requests: int, share: float, random: np.random.Generator
) -> Traffic:
    """Draw traffic of which each request goes to the candidate with probability `share`."""
    tick, slow = _arrivals(mix, runs, requests, random)
    classes = _class_sequence(mix, runs, requests, random)
    level = np.log([item.median for item in mix.classes])
    common = _drift(mix, runs, int(tick.max()) + 1, random)
    log_seconds = (
        level[classes]
        + mix.burst_slowdown * slow
        + np.take_along_axis(common, tick, axis=1)
        + _class_residuals(mix, classes, random)
    )
    candidate = random.random((runs, requests)) < share
    return Traffic(tick, classes, log_seconds, candidate, len(mix.classes))


def residuals(shape: tuple[int, int], correlation: float, random: np.random.Generator) -> Floats:
    """Draw standard normal series, along the second axis, of which neighbours correlate."""
    noise = random.standard_normal(shape)
    noise[:, 1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise, axis=1), dtype=np.float64)


def _arrivals(
    mix: Mix, runs: int, requests: int, random: np.random.Generator
) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the tick of each request, and whether it came in a burst."""
    ticks = int(3 * requests / mix.requests_per_tick) + 20
    uniform = random.random((runs, ticks))
    burst = np.zeros((runs, ticks), dtype=np.bool_)
    for at in range(1, ticks):
        before = burst[:, at - 1]
        burst[:, at] = np.where(
            before, uniform[:, at] >= mix.burst_ends, uniform[:, at] < mix.burst_begins
        )
    rate = mix.requests_per_tick * np.where(burst, mix.burst_factor, 1.0)
    arrived = np.cumsum(random.poisson(rate), axis=1)
    order = np.arange(requests)
    tick = np.stack([np.searchsorted(row, order, side="right") for row in arrived])
    tick = np.minimum(tick, ticks - 1)
    return tick, np.take_along_axis(burst, tick, axis=1)


def _class_sequence(mix: Mix, runs: int, requests: int, random: np.random.Generator) -> Integers:
    weights = np.array([item.weight for item in mix.classes])
    fresh = random.choice(len(weights), size=(runs, requests), p=weights / weights.sum())
    repeats = random.random((runs, requests)) < mix.same_class
    repeats[:, 0] = False
    source = np.where(repeats, 0, np.arange(requests))
    return np.asarray(
        np.take_along_axis(fresh, np.maximum.accumulate(source, axis=1), axis=1), dtype=np.int64
    )


def _drift(mix: Mix, runs: int, ticks: int, random: np.random.Generator) -> Floats:
    return mix.drift * residuals((runs, ticks), 0.98, random)


def _class_residuals(mix: Mix, classes: Integers, random: np.random.Generator) -> Floats:
    result = np.zeros(classes.shape)
    for index, item in enumerate(mix.classes):
        members = classes == index
        series = item.log_deviation * residuals(classes.shape, item.correlation, random)
        place = np.maximum(np.cumsum(members, axis=1) - 1, 0)
        result += np.where(members, np.take_along_axis(series, place, axis=1), 0.0)
    return result
