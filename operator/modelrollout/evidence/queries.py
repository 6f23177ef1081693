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

__all__ = ["NAMESPACE", "POD", "PROBE_FAMILIES", "SERVER_FAMILIES", "Family"]


def _as_prometheus_label(name: str) -> str:
    """Return the name that Kubernetes discovery gives to a pod label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


NAMESPACE: Final = "namespace"
POD: Final = "pod"
_COMPONENT: Final = _as_prometheus_label(COMPONENT_LABEL)

_DEVICE: Final = "device"
"""The one label of the busy time beside the common ones."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family and the query that reads it."""

    name: str
    query: str
    dimension: str | None = None
    """Label that tells the values of one pod apart, where there are several."""


def _server(name: str, summed: Iterable[str] = (), *, dimension: str | None = None) -> Family:
    labels = ", ".join((*contract.COMMON_LABELS, *summed))
    query = f'sum without ({labels}) ({name}{{{_COMPONENT}="server"}})'
    return Family(name, query, dimension)


def _probe(name: str, arm: contract.Arm | None = None) -> Family:
    chosen = "" if arm is None else f', {contract.LABEL_ARM}="{arm}"'
    return Family(name, f'{name}{{{_COMPONENT}="probe"{chosen}}}')


SERVER_FAMILIES: Final = (
    _server(contract.REQUESTS_TOTAL, [contract.LABEL_CODE], dimension=contract.LABEL_OUTCOME),
    _server(contract.REQUEST_DURATION_BUCKET, [contract.LABEL_SIZE_CLASS], dimension="le"),
    _server(contract.IMAGES_TOTAL, [contract.LABEL_SIZE_CLASS]),
    _server(contract.REQUEST_GPU_SECONDS_COUNT),
    _server(contract.REQUEST_GPU_SECONDS_SUM),
    _server(contract.REQUEST_GPU_SECONDS_SQUARES_SUM),
    _server(contract.GPU_BUSY_SECONDS_TOTAL, [_DEVICE]),
    _server(contract.OOM_TOTAL, [contract.LABEL_PHASE, contract.LABEL_RECOVERED]),
)
"""The counters of server pods."""

PROBE_FAMILIES: Final = (
    _probe(contract.PROBE_REPEAT_PROMPTS_TOTAL, contract.Arm.CANDIDATE),
    _probe(contract.PROBE_REPEAT_PSD, contract.Arm.CANDIDATE),
    _probe(contract.PROBE_LOADING),
)
"""The results of probes."""
