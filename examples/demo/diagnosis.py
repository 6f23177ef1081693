"""What there is to see when a step ended other than expected."""

from __future__ import annotations

import json

from examples.demo.service import NAME, Service
from tests.cluster.errors import ClusterError
from tests.cluster.stack import OPERATOR_NAMESPACE

__all__ = ["findings"]

_LOG = "the operator's log"
_LOG_LINES = 40
_HEALTH_CHECKS = ("GET /healthz", "kopf.activities.probe")
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
        _LOG: (
            *("logs", "-n", OPERATOR_NAMESPACE, "deployment/modelrollout"),
            f"--tail={_LOG_LINES * 10}",
        ),
    }
    found = {heading: _said(service, *command) for heading, command in commands.items()}
    found[_LOG] = _without_health_checks(found[_LOG])
    return [*found.items(), ("why containers ended", _ends(service))]


def _said(service: Service, *arguments: str) -> str:
    try:
        return service.cluster.kubectl(*arguments, timeout=20).rstrip() or "(nothing)"
    except ClusterError as error:
        return str(error)


def _without_health_checks(log: str) -> str:
    lines = [line for line in log.splitlines() if not any(word in line for word in _HEALTH_CHECKS)]
    return "\n".join(lines[-_LOG_LINES:]) or "(nothing)"


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
