"""What there is to see when a step ended other than expected."""

from __future__ import annotations

import json

from examples.demo.service import NAME, Service

from tests.cluster.errors import ClusterError
from tests.cluster.stack import OPERATOR_NAMESPACE

__all__ = ["findings"]

_LOG_LINES = 40
_CONDITIONS = "{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{'\\n'}{end}"
_ATTEMPTS = (
    "{range .status.history[*]}{.attempt} {.revision} {.outcome} {.reason}: {.message}{'\\n'}{end}"
)


def findings(service: Service) -> list[tuple[str, str]]:
    """Return headings and texts: the status, events, pods, and the end of the operator's log."""
    where = ("-n", service.namespace)
    rollout = ("get", "mro", NAME, *where, "-o")
    commands = {
        "conditions": (*rollout, f"jsonpath={_CONDITIONS}"),
        "attempts, the latest first": (*rollout, f"jsonpath={_ATTEMPTS}"),
        "events": ("events", *where, "--for", f"modelrollout/{NAME}"),
        "pods": ("get", "pods", *where, "-o", "wide"),
        "the operator's log": (
            *("logs", "-n", OPERATOR_NAMESPACE, "deployment/modelrollout"),
            f"--tail={_LOG_LINES}",
        ),
    }
    found = [(heading, _said(service, *command)) for heading, command in commands.items()]
    return [*found, ("why containers ended", _ends(service))]


def _said(service: Service, *arguments: str) -> str:
    try:
        return service.cluster.kubectl(*arguments, timeout=20).rstrip() or "(nothing)"
    except ClusterError as error:
        return str(error)


def _ends(service: Service) -> str:
    try:
        pods = service.cluster.get("pods", "-n", service.namespace)["items"]
    except (ClusterError, json.JSONDecodeError) as error:
        return str(error)
    lines = []
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            for state in ("state", "lastState"):
                end = status.get(state, {}).get("terminated")
                if end and end.get("reason") != "Completed":
                    lines.append(f"{pod['metadata']['name']}: {end['reason']} {end['exitCode']}")
    return "\n".join(lines) or "(none ended badly)"
