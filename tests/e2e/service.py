"""An image service on the cluster, as its platform team sees it: YAML in, status out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from tests.cluster.handle import Cluster
from tests.cluster.processes import wait_for

Document = dict[str, Any]

LATENCY: Final = {"name": "latency", "latency": {"percentile": 90, "maxMilliseconds": 4000}}
PATIENT: Final = {"name": "latency", "latency": {"percentile": 90, "maxMilliseconds": 60000}}
MEMORY: Final = {"name": "oom", "outOfMemory": {"maxCount": 0}}
ERRORS: Final = {"name": "errors", "errors": {"maxPercent": "10"}}
COST: Final = {"name": "cost", "cost": {"maxPerImage": "0.02"}}
REPEATABLE: Final = {"name": "repeatable", "stability": {"kind": "Repeat", "max": "0.002"}}
EVERY_GATE: Final = [LATENCY, MEMORY, ERRORS, COST, REPEATABLE]
VS_STABLE: Final = {"name": "latency-vs-stable", "latency": {"maxIncreasePercent": 50}}

STABLE_STEPS: Final = 3
SLOWER_STEPS: Final = 10
"""Slower than stable, and still quick enough for the load."""

SLOW_STEPS: Final = 50


class Service:
    """One ModelRollout and what belongs to it."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name

    def declare(
        self,
        *,
        model: str = "first",
        steps: int = STABLE_STEPS,
        size: int = 64,
        batch: int = 1,
        pipeline: Document | None = None,
        suite: str = "default",
        gates: list[Document] | None = None,
        **changes: Any,
    ) -> None:
        """Apply the rollout, as a team's pipeline would."""
        used: Document = {
            "precision": "Float32",
            "scheduler": "DDIM",
            "steps": steps,
            "guidanceScale": "5",
            "width": size,
            "height": size,
            **(pipeline or {}),
        }
        spec: Document = {
            "pool": "preview",
            "model": {
                "source": {"persistentVolumeClaim": {"claimName": "models", "path": model}},
                "pipeline": used,
                "limits": {
                    "maxSteps": 100,
                    "maxBatchSize": batch,
                    "maxPixels": used["width"] * used["height"],
                },
            },
            "serving": {
                "resources": {
                    "requests": {"cpu": "100m", "memory": "600Mi"},
                    "limits": {"cpu": "1", "memory": "1500Mi"},
                }
            },
            "strategy": {
                "stages": [
                    {"name": "isolated", "probe": {"suite": suite, "requestsPerMinute": 150}}
                ],
                "onInconclusive": "Rollback",
                "deadlines": {"loadSeconds": 180, "analysisSeconds": 180},
            },
            "analysis": {"warmupRequests": 5, "minRequests": 30, "maxRequests": 400},
            "gates": gates or EVERY_GATE,
            **changes,
        }
        self.cluster.apply(
            {
                "apiVersion": "modelrollout.dev/v1alpha1",
                "kind": "ModelRollout",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": spec,
            }
        )

    def command(self, name: str, revision: str) -> None:
        """Annotate the rollout with a command about a revision."""
        self.cluster.kubectl(
            *("annotate", "-n", self.namespace, "modelrollout", self.name, "--overwrite"),
            f"modelrollout.dev/{name}={revision}",
        )

    def commands(self) -> list[str]:
        """Return the command annotations that the rollout carries."""
        annotations = self.read()["metadata"].get("annotations", {})
        return [name for name in annotations if name.startswith("modelrollout.dev/")]

    def read(self) -> Document:
        return self.cluster.get("modelrollout", self.name, "-n", self.namespace)

    def status(self) -> Document:
        status: Document = self.read().get("status", {})
        return status

    def stable(self) -> str:
        return str(self.status()["stable"]["revision"])

    def condition(self, kind: str) -> Document:
        return condition(self.status(), kind)

    def until(
        self, holds: Callable[[Document], bool], what: str, *, timeout: float = 150
    ) -> Document:
        """Wait until the status is as wanted, and return it."""

        def look() -> Document | None:
            document = self.read()
            status: Document = document.get("status", {})
            seen = status.get("observedGeneration") == document["metadata"]["generation"]
            return status if seen and holds(status) else None

        return wait_for(look, what=what, timeout=timeout)

    def until_measured(self, requests: int = 1) -> Document:
        """Wait until the candidate has been measured on some requests."""

        def measured(status: Document) -> bool:
            # "repeats 3/8" before the load, "34/300" then
            count = str(candidate(status).get("requests", "")).split("/")[0]
            return count.isdecimal() and int(count) >= requests

        return self.until(measured, f"{requests} measured requests")

    def until_ended(self, attempt: int, *, timeout: float = 150) -> Document:
        """Wait until an attempt has ended, and return its record."""
        status = self.until(
            lambda status: any(item["attempt"] == attempt for item in status.get("history", [])),
            f"the end of attempt {attempt}",
            timeout=timeout,
        )
        record: Document = next(item for item in status["history"] if item["attempt"] == attempt)
        return record

    def next_attempt(self) -> int:
        return int(self.status().get("attempts", 0)) + 1

    def server_pods(self, revision: str) -> dict[str, Document]:
        """Return the pods of a revision by UID."""
        labels = {"rollout": self.name, "revision": revision, "component": "server"}
        selector = ",".join(f"modelrollout.dev/{key}={value}" for key, value in labels.items())
        found = self.cluster.get("pods", "-n", self.namespace, "-l", selector)
        return {item["metadata"]["uid"]: item for item in found["items"]}

    def serving_pods(self) -> set[str]:
        """Return the UIDs of the pods behind the Service that users call."""
        found = self.cluster.get(
            *("endpointslices", "-n", self.namespace),
            *("-l", f"kubernetes.io/service-name={self.name}"),
        )
        return {
            endpoint["targetRef"]["uid"]
            for item in found["items"]
            for endpoint in item.get("endpoints") or []
            if endpoint["conditions"].get("ready")
        }

    def generate(self) -> Document:
        """Ask the service for an image, as its users do."""
        answer: Document = json.loads(
            self.cluster.kubectl(
                *("create", "--raw"),
                f"/api/v1/namespaces/{self.namespace}/services/{self.name}:http/proxy"
                "/v1/images/generations",
                *("-f", "-"),
                given=json.dumps({"prompt": "a red circle", "seed": 7}),
            )
        )
        return answer

    def events(self) -> list[Document]:
        found = self.cluster.get("events.events.k8s.io", "-n", self.namespace)
        return [item for item in found["items"] if item["regarding"].get("name") == self.name]

    def settle(self) -> None:
        """Bring the rollout to rest with whatever is stable."""
        if self.status().get("candidate"):
            revision = self.status()["candidate"]["revision"]
            self.command("abort", revision)
        self.until(lambda status: not status.get("candidate"), "no attempt in progress")


def candidate(status: Document) -> Document:
    found: Document = status.get("candidate") or {}
    return found


def condition(status: Document, kind: str) -> Document:
    for item in status.get("conditions", []):
        if item["type"] == kind:
            found: Document = item
            return found
    return {"status": "Unknown", "reason": "", "message": ""}


def steady_for(seconds: float, holds: Callable[[], bool]) -> bool:
    """Return whether something held at every look for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not holds():
            return False
        time.sleep(0.5)
    return True
