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
from modelrollout.api.names import COMPONENT_LABEL, REVISION_LABEL, ROLLOUT_LABEL

__all__ = [
    "NAMESPACE",
    "POD",
    "PROBE_FAMILIES",
    "REVISION",
    "ROLLOUT",
    "SERVER_FAMILIES",
    "Family",
]


def _as_prometheus_label(name: str) -> str:
    """Return the name that Kubernetes discovery gives to a pod label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


NAMESPACE: Final = "namespace"
POD: Final = "pod"
ROLLOUT: Final = _as_prometheus_label(ROLLOUT_LABEL)
REVISION: Final = _as_prometheus_label(REVISION_LABEL)
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

    whole: bool = True
    """Whether its values are counts."""


def _server(
    name: str, summed: Iterable[str] = (), *, dimension: str | None = None, whole: bool = True
) -> Family:
    labels = ", ".join((*contract.COMMON_LABELS, *summed))
    query = f'sum without ({labels}) ({name}{{{_COMPONENT}="server"}})'
    return Family(name, query, dimension, whole)


def _probe(name: str, *, whole: bool = True) -> Family:
    arm = f'{contract.LABEL_ARM}="{contract.Arm.CANDIDATE}"'
    return Family(name, f'{name}{{{_COMPONENT}="probe", {arm}}}', whole=whole)


SERVER_FAMILIES: Final = (
    _server(contract.REQUESTS_TOTAL, [contract.LABEL_CODE], dimension=contract.LABEL_OUTCOME),
    _server(contract.REQUEST_DURATION_BUCKET, [contract.LABEL_SIZE_CLASS], dimension="le"),
    _server(contract.IMAGES_TOTAL, [contract.LABEL_SIZE_CLASS]),
    _server(contract.REQUEST_GPU_SECONDS_COUNT),
    _server(contract.REQUEST_GPU_SECONDS_SUM, whole=False),
    _server(contract.REQUEST_GPU_SECONDS_SQUARES_SUM, whole=False),
    _server(contract.GPU_BUSY_SECONDS_TOTAL, [_DEVICE], whole=False),
    _server(contract.OOM_TOTAL, [contract.LABEL_PHASE, contract.LABEL_RECOVERED]),
)
"""The counters of server pods."""

PROBE_FAMILIES: Final = (
    _probe(contract.PROBE_REPEAT_PROMPTS_TOTAL),
    _probe(contract.PROBE_REPEAT_PSD, whole=False),
)
"""The results of probes."""
