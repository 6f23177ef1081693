"""The kinds that the operator reads and writes."""

from __future__ import annotations

from typing import Final

from modelrollout.api.names import API_VERSION, PLURAL
from modelrollout.cluster.client import Resource

__all__ = [
    "CONTROLLER_REVISIONS",
    "DEPLOYMENTS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "JOBS",
    "MODEL_ROLLOUTS",
    "PODS",
    "SERVICES",
]

MODEL_ROLLOUTS: Final = Resource(API_VERSION, PLURAL)
CONTROLLER_REVISIONS: Final = Resource("apps/v1", "controllerrevisions")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io/v1", "endpointslices")
EVENTS: Final = Resource("events.k8s.io/v1", "events")
JOBS: Final = Resource("batch/v1", "jobs")
PODS: Final = Resource("v1", "pods")
SERVICES: Final = Resource("v1", "services")
