"""Names: the API group, labels and annotations, and the objects that belong to a rollout."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ABORT_ANNOTATION",
    "API_VERSION",
    "COMPONENT_LABEL",
    "FIELD_MANAGER",
    "FINALIZER",
    "GROUP",
    "KIND",
    "PLURAL",
    "RETRY_ANNOTATION",
    "REVISION_LABEL",
    "ROLLOUT_LABEL",
    "SINGULAR",
    "VERSION",
    "probe_name",
    "revision_object_name",
    "revision_selector",
    "stable_service_name",
]

GROUP: Final = "modelrollout.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "ModelRollout"
SINGULAR: Final = "modelrollout"
PLURAL: Final = "modelrollouts"

ROLLOUT_LABEL: Final = f"{GROUP}/rollout"
REVISION_LABEL: Final = f"{GROUP}/revision"
COMPONENT_LABEL: Final = f"{GROUP}/component"

ABORT_ANNOTATION: Final = f"{GROUP}/abort"
RETRY_ANNOTATION: Final = f"{GROUP}/retry"

FINALIZER: Final = f"{GROUP}/cleanup"
FIELD_MANAGER: Final = "modelrollout"


def stable_service_name(rollout: str) -> str:
    """Return the name of the Service that users call: the rollout's own name."""
    return rollout


def revision_object_name(rollout: str, revision: str) -> str:
    """Return the name of a revision's Deployment, Service and ControllerRevision."""
    return f"{rollout}-{revision}"


def probe_name(rollout: str, revision: str) -> str:
    """Return the name of the Job that probes a candidate revision."""
    return f"{rollout}-{revision}-probe"


def revision_selector(rollout: str, revision: str) -> dict[str, str]:
    """Return the labels that select the server pods of one revision."""
    return {ROLLOUT_LABEL: rollout, REVISION_LABEL: revision, COMPONENT_LABEL: "server"}
