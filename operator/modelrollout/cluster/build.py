"""The objects of a rollout, built from its record: pure functions returning plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from imagegen.contract import HTTP_PORT, LIVE_PATH, METRICS_PORT, READY_PATH
from modelrollout.api.model import ResourceList
from modelrollout.api.names import (
    API_VERSION,
    COMPONENT_LABEL,
    GROUP,
    KIND,
    REVISION_LABEL,
    ROLLOUT_LABEL,
    probe_name,
    revision_object_name,
    revision_selector,
    stable_service_name,
)
from modelrollout.api.revision import RevisionContent
from modelrollout.gates.stability import FEWEST_PROMPTS
from modelrollout.rollout.desired import ProbeRun, Server
from modelrollout.settings import Pool, Runtime

__all__ = [
    "PROBE_RUN_ANNOTATION",
    "Owner",
    "controller_revision",
    "deployment",
    "probe_job",
    "revision_service",
    "stable_service",
]

Object = dict[str, Any]

MODEL_MOUNT: Final = "/models"
LOAD_BUDGET_SECONDS: Final = 86400
"""The startup probe never ends a slow load: the attempt's own deadline does, with a reason."""

TERMINATION_GRACE_SECONDS: Final = 60
PRE_STOP_SECONDS: Final = 5
DRAIN_SECONDS: Final = TERMINATION_GRACE_SECONDS - PRE_STOP_SECONDS - 5
"""All the time that a server has to finish what it accepted, but for the end itself."""

PROBE_RUN_ANNOTATION: Final = f"{GROUP}/probe-run"
PROBE_REPEAT_PROMPTS: Final = FEWEST_PROMPTS
PROBE_REPEATS: Final = 3
QUEUE_CAPACITY: Final = 64


@dataclass(frozen=True, slots=True)
class Owner:
    """The rollout that owns the objects."""

    namespace: str
    name: str
    uid: str

    def metadata(
        self, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> Object:
        """Return the metadata of an owned object."""
        document: Object = {
            "name": name,
            "namespace": self.namespace,
            "labels": {
                "app.kubernetes.io/name": "modelrollout",
                "app.kubernetes.io/instance": self.name,
                "app.kubernetes.io/managed-by": "modelrollout",
                **labels,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }
        if annotations:
            document["annotations"] = dict(annotations)
        return document


def controller_revision(
    owner: Owner, server: Server, content: RevisionContent, runtime: Runtime, number: int
) -> Object:
    """Return the immutable record of what a revision is made of."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": owner.metadata(
            revision_object_name(owner.name, server.revision), _labels(owner, server.revision)
        ),
        "data": {
            "content": content.to_api(),
            "runtime": runtime.model_dump(mode="json", by_alias=True),
            "latencyEdgesMilliseconds": list(server.latency_edges),
        },
        "revision": number,
    }


def deployment(
    owner: Owner, server: Server, content: RevisionContent, pool: Pool, runtime: Runtime
) -> Object:
    """Return the Deployment of a revision's server pods.

    Parameters
    ----------
    owner
        The rollout.
    server
        Revision, replicas and latency edges.
    content
        The model and its serving runtime.
    pool, runtime
        The administrator's nodes and server image.
    """
    labels = _labels(owner, server.revision, component="server")
    selector = revision_selector(owner.name, server.revision)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(revision_object_name(owner.name, server.revision), labels),
        "spec": {
            "replicas": server.replicas,
            "revisionHistoryLimit": 1,
            # The attempt has its own deadline; the Deployment must not give up before it.
            "progressDeadlineSeconds": LOAD_BUDGET_SECONDS,
            # A surge pod would wait for a GPU that the old pod holds.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": {**labels, **selector}},
                "spec": {
                    **_placement(pool),
                    "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
                    "containers": [_server_container(server, content, runtime)],
                    "volumes": [
                        {
                            "name": "model",
                            "persistentVolumeClaim": {
                                "claimName": _claim(content).claim_name,
                                "readOnly": True,
                            },
                        },
                        _scratch_volume(),
                    ],
                },
            },
        },
    }


def revision_service(owner: Owner, revision: str) -> Object:
    """Return the Service by which the probe reaches one revision."""
    return _service(owner, revision_object_name(owner.name, revision), revision)


def stable_service(owner: Owner, revision: str) -> Object:
    """Return the Service that users call; its selector names the revision that serves."""
    return _service(owner, stable_service_name(owner.name), revision)


def probe_job(owner: Owner, run: ProbeRun, runtime: Runtime, *, deadline_seconds: int) -> Object:
    """Return the Job that drives load and measures repeat stability."""
    name = probe_name(owner.name, run.candidate)
    labels = _labels(owner, run.candidate, component="probe")
    arguments = [
        "probe",
        f"--candidate=http://{revision_object_name(owner.name, run.candidate)}:{HTTP_PORT}",
        f"--rate={run.requests_per_minute / 60:.6g}",
        f"--repeat-prompts={PROBE_REPEAT_PROMPTS}",
        f"--repeats={PROBE_REPEATS}",
        f"--repeat-seconds={run.deadline_seconds}",
        f"--suite={run.suite}",
        f"--metrics-port={METRICS_PORT}",
    ]
    if run.stable is not None:
        arguments.insert(
            1, f"--stable=http://{revision_object_name(owner.name, run.stable)}:{HTTP_PORT}"
        )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owner.metadata(name, labels, {PROBE_RUN_ANNOTATION: run.name}),
        "spec": {
            "backoffLimit": 3,
            "activeDeadlineSeconds": deadline_seconds,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "OnFailure",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": _pod_security(),
                    "containers": [
                        {
                            "name": "probe",
                            "image": runtime.image,
                            "imagePullPolicy": runtime.image_pull_policy,
                            "args": arguments,
                            "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
                            "resources": {
                                "requests": {"cpu": "50m", "memory": "128Mi"},
                                "limits": {"memory": "1Gi"},
                            },
                            "securityContext": _container_security(),
                            "volumeMounts": [_scratch_mount()],
                        }
                    ],
                    "volumes": [_scratch_volume()],
                },
            },
        },
    }


def _service(owner: Owner, name: str, revision: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(name, {ROLLOUT_LABEL: owner.name, REVISION_LABEL: revision}),
        "spec": {
            "type": "ClusterIP",
            "selector": revision_selector(owner.name, revision),
            "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}],
        },
    }


def _server_container(server: Server, content: RevisionContent, runtime: Runtime) -> Object:
    return {
        "name": "server",
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        "args": _server_arguments(server, content),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "env": [
            {
                # A library that counts the node's cores instead would start too many threads.
                "name": "OMP_NUM_THREADS",
                "valueFrom": {
                    "resourceFieldRef": {"containerName": "server", "resource": "limits.cpu"}
                },
            }
        ],
        "resources": _resources(content),
        "securityContext": _container_security(),
        "startupProbe": {
            "httpGet": {"path": READY_PATH, "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": LOAD_BUDGET_SECONDS // 2,
        },
        "readinessProbe": {
            "httpGet": {"path": READY_PATH, "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": LIVE_PATH, "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        # The server refuses new work once it is told to end; proxies learn of that a little later.
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_MOUNT, "readOnly": True},
            _scratch_mount(),
        ],
    }


def _server_arguments(server: Server, content: RevisionContent) -> list[str]:
    pipeline, limits = content.model.pipeline, content.model.limits
    edges = ",".join(f"{edge / 1000:.12g}" for edge in server.latency_edges)
    claim = _claim(content)
    allowed = ",".join(limits.allowed_schedulers or [])
    return [
        "serve",
        f"--model={MODEL_MOUNT}/{claim.path}",
        *([f"--digest={claim.digest}"] if claim.digest else []),
        f"--model-name={claim.path}",
        f"--revision={server.revision}",
        f"--precision={pipeline.precision}",
        f"--scheduler={pipeline.scheduler}",
        f"--steps={pipeline.steps}",
        f"--guidance-scale={pipeline.guidance_scale}",
        f"--width={pipeline.width}",
        f"--height={pipeline.height}",
        f"--max-steps={limits.max_steps}",
        f"--max-batch-size={limits.max_batch_size}",
        f"--max-images-per-request={limits.max_images_per_request}",
        f"--max-pixels={limits.max_pixels}",
        *([f"--allow-schedulers={allowed}"] if allowed else []),
        *([f"--latency-edges={edges}"] if edges else []),
        f"--queue-capacity={QUEUE_CAPACITY}",
        f"--drain-seconds={DRAIN_SECONDS}",
        "--host=0.0.0.0",
        f"--port={HTTP_PORT}",
        f"--metrics-port={METRICS_PORT}",
    ]


def _claim(content: RevisionContent) -> Any:
    claim = content.model.source.persistent_volume_claim
    if claim is None:
        raise ValueError("the API server admits no source without `persistentVolumeClaim`")
    return claim


def _resources(content: RevisionContent) -> Object:
    gpu = {content.serving.gpu.resource_name: str(content.serving.gpu.count)}
    declared = content.serving.resources
    return {
        "requests": {**_amounts(declared.requests), **gpu},
        "limits": {**_amounts(declared.limits), **gpu},
    }


def _amounts(amounts: ResourceList) -> dict[str, str]:
    return {
        key: value for key, value in (("cpu", amounts.cpu), ("memory", amounts.memory)) if value
    }


def _placement(pool: Pool) -> Object:
    placement: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(),
    }
    if pool.node_selector:
        placement["nodeSelector"] = pool.node_selector
    if pool.tolerations:
        placement["tolerations"] = pool.tolerations
    if pool.priority_class_name:
        placement["priorityClassName"] = pool.priority_class_name
    if pool.runtime_class_name:
        placement["runtimeClassName"] = pool.runtime_class_name
    return placement


def _labels(owner: Owner, revision: str, *, component: str | None = None) -> dict[str, str]:
    labels = {ROLLOUT_LABEL: owner.name, REVISION_LABEL: revision}
    return labels if component is None else {**labels, COMPONENT_LABEL: component}


def _pod_security() -> Object:
    return {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _scratch_volume() -> Object:
    return {"name": "scratch", "emptyDir": {}}


def _scratch_mount() -> Object:
    return {"name": "scratch", "mountPath": "/tmp"}  # noqa: S108 - the container's own
