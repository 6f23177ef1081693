"""What is asked of Prometheus: one query per metric family, for all rollouts together.

Each query sums over the label dimensions that the metric contract names and over no others. Two
series that are left for one pod are then two sources of the same counters (a pod that is scraped
twice, replicas of Prometheus that were not deduplicated), and they are seen as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from imagegen import contract
from modelrollout.api.names import COMPONENT_LABEL

__all__ = [
    "DEVICE_MEMORY",
    "NAMESPACE",
    "PEAK_MEMORY",
    "POD",
    "PROBE_FAMILIES",
    "SERVER_FAMILIES",
    "Family",
]


def _as_prometheus_label(name: str) -> str:
    """Return the name that Kubernetes discovery gives to a pod label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


NAMESPACE: Final = "namespace"
POD: Final = "pod"
_COMPONENT: Final = _as_prometheus_label(COMPONENT_LABEL)

_DEVICE: Final = "device"
"""The one label of the busy time beside the common ones."""

_KIND: Final = "kind"
PEAK_MEMORY: Final = "peak_reserved"
"""The most that the server's allocator ever held, load and warm-up included: what has to fit."""

DEVICE_MEMORY: Final = "device_total"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family and the query that reads it."""

    name: str
    query: str
    dimension: str | None = None
    """Label that tells the values of one pod apart, where there are several."""


def _sum(name: str, summed: Iterable[str] = (), chosen: str = "") -> str:
    labels = ", ".join((*contract.COMMON_LABELS, *summed))
    return f'sum without ({labels}) ({name}{{{_COMPONENT}="server"{chosen}}})'


def _server(name: str, summed: Iterable[str] = (), *, dimension: str | None = None) -> Family:
    return Family(name, _sum(name, summed), dimension)


def _log_moments(name: str) -> Family:
    """Return a family of which only classes with requests are asked: most have none.

    `!= 0` lets pass what is no number; `> 0` would hide it.
    """
    used = f"{_sum(contract.REQUEST_LOG_SECONDS_COUNT)} != 0"
    counted = name == contract.REQUEST_LOG_SECONDS_COUNT
    query = used if counted else f"{_sum(name)} and ({used})"
    return Family(name, query, contract.LABEL_REQUEST_CLASS)


def _device_memory() -> Family:
    kinds = f', {_KIND}=~"{PEAK_MEMORY}|{DEVICE_MEMORY}"'
    return Family(contract.VRAM_BYTES, _sum(contract.VRAM_BYTES, chosen=kinds), _KIND)


def _probe(name: str, arm: contract.Arm | None = None, *, dimension: str | None = None) -> Family:
    chosen = "" if arm is None else f', {contract.LABEL_ARM}="{arm}"'
    return Family(name, f'{name}{{{_COMPONENT}="probe"{chosen}}}', dimension)


SERVER_FAMILIES: Final = (
    _server(contract.REQUESTS_TOTAL, [contract.LABEL_CODE], dimension=contract.LABEL_OUTCOME),
    _server(contract.REQUEST_DURATION_BUCKET, [contract.LABEL_SIZE_CLASS], dimension="le"),
    _server(contract.IMAGES_TOTAL, [contract.LABEL_SIZE_CLASS]),
    _server(contract.REQUEST_GPU_SECONDS_COUNT),
    _server(contract.REQUEST_GPU_SECONDS_SUM),
    _server(contract.REQUEST_GPU_SECONDS_SQUARES_SUM),
    _server(contract.GPU_BUSY_SECONDS_TOTAL, [_DEVICE]),
    _server(contract.OOM_TOTAL, [contract.LABEL_PHASE, contract.LABEL_RECOVERED]),
    _log_moments(contract.REQUEST_LOG_SECONDS_COUNT),
    _log_moments(contract.REQUEST_LOG_SECONDS_SUM),
    _log_moments(contract.REQUEST_LOG_SECONDS_SQUARES_SUM),
    _device_memory(),
)
"""The counters of server pods, and the memory of their devices."""

PROBE_FAMILIES: Final = (
    _probe(contract.PROBE_REPEAT_PROMPTS_TOTAL, contract.Arm.CANDIDATE),
    _probe(contract.PROBE_REPEAT_PSD, contract.Arm.CANDIDATE),
    _probe(contract.PROBE_LOADING),
    _probe(contract.PROBE_REQUEST_DURATION_COUNT, dimension=contract.LABEL_ARM),
    _probe(contract.PROBE_SKIPPED_TOTAL, dimension=contract.LABEL_ARM),
)
"""The results of probes."""
