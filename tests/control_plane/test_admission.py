"""What the API server itself refuses: the schema and CEL, with messages that people can use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.errors import CommandError
from tests.cluster.handle import Cluster
from tests.unit.rollout.story import spec_document

pytestmark = pytest.mark.cluster

Document = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"


def rollout(name: str = "images") -> Document:
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": name},
        "spec": spec_document(),
    }


def changed(path: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[int(part)] if part.isdigit() else node.setdefault(part, {})
        node[int(last) if last.isdigit() else last] = value

    return change


def without(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[part]
        del node[last]

    return change


BAD: list[tuple[str, Callable[[Document], None], str]] = [
    (
        "an unknown scheduler is refused by name with the list of known ones",
        changed("spec.model.pipeline.scheduler", "fast_ema"),
        'scheduler: Unsupported value: "fast_ema": supported values: "DDIM"',
    ),
    (
        "more steps than the cap",
        changed("spec.model.pipeline.steps", 150),
        "`pipeline.steps` must be less than or equal to `limits.maxSteps`",
    ),
    (
        "no step cap at all",
        without("spec.model.limits.maxSteps"),
        "spec.model.limits.maxSteps: Required value",
    ),
    (
        "a picture larger than the cap",
        changed("spec.model.pipeline.width", 2048),
        "`pipeline.width` times `pipeline.height` must be less than or equal to `limits.maxPixels`",
    ),
    (
        "a width that is no multiple of 8",
        changed("spec.model.pipeline.width", 65),
        "spec.model.pipeline.width",
    ),
    (
        "a float where a decimal string belongs",
        changed("spec.model.pipeline.guidanceScale", 7.5),
        "guidanceScale: Invalid value",
    ),
    (
        "a decimal string that is no number",
        changed("spec.model.pipeline.guidanceScale", "high"),
        "spec.model.pipeline.guidanceScale",
    ),
    (
        "an unknown precision",
        changed("spec.model.pipeline.precision", "fp32"),
        'precision: Unsupported value: "fp32": supported values: "Float32", "BFloat16", "Float16"',
    ),
    (
        "a batch of none",
        changed("spec.model.limits.maxBatchSize", 0),
        "maxBatchSize in body should be greater than or equal to 1",
    ),
    (
        "a path that leaves the volume",
        changed("spec.model.source.persistentVolumeClaim.path", "../../etc"),
        "spec.model.source.persistentVolumeClaim.path",
    ),
    (
        "a digest of a folder that no tool prints",
        changed("spec.model.source.persistentVolumeClaim.digest", "sha256:12ab"),
        "`digest` must be `sha256:` and 64 hexadecimal digits in lower case",
    ),
    (
        "a digest of another kind",
        changed("spec.model.source.persistentVolumeClaim.digest", "sha512:" + 128 * "a"),
        "`imagegen digest DIR` prints the digest of a folder",
    ),
    (
        "an allowed scheduler that does not exist",
        changed("spec.model.limits.allowedSchedulers", ["DDIM", "fast_ema"]),
        'allowedSchedulers[1]: Unsupported value: "fast_ema": supported values: "DDIM"',
    ),
    (
        "an allowed scheduler twice",
        changed("spec.model.limits.allowedSchedulers", ["DDIM", "DDIM"]),
        'allowedSchedulers[1]: Duplicate value: "DDIM"',
    ),
    (
        "no source",
        changed("spec.model.source", {}),
        "exactly one source must be set",
    ),
    (
        "no gates",
        changed("spec.gates", []),
        "spec.gates in body should have at least 1 items",
    ),
    (
        "only gates that observe",
        changed("spec.gates", [{"name": "a", "mode": "Observe", "errors": {"maxPercent": "1"}}]),
        "at least one gate must have the mode 'Enforce'",
    ),
    (
        "more memory asked for than allowed",
        changed(
            "spec.serving",
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1024Mi"}}},
        ),
        "`requests.memory` must be less than or equal to `limits.memory`",
    ),
    (
        "no gate on what users get",
        changed("spec.gates", [{"name": "oom", "outOfMemory": {"maxCount": 0}}]),
        "a candidate that answers nothing must not pass",
    ),
    (
        "a gate of two kinds",
        changed("spec.gates.0.errors", {"maxPercent": "1"}),
        "exactly one kind of gate must be set: `latency`, `outOfMemory`",
    ),
    (
        "a gate of no kind",
        changed("spec.gates.0", {"name": "empty"}),
        "exactly one kind of gate must be set",
    ),
    (
        "two gates of one name",
        changed("spec.gates.1.name", "latency"),
        'Duplicate value: {"name":"latency"}',
    ),
    (
        "a percentile that no count can prove",
        changed("spec.gates.0.latency.percentile", 100),
        "percentile in body should be less than or equal to 99",
    ),
    (
        "a latency gate of two forms",
        changed(
            "spec.gates.0.latency",
            {"percentile": 95, "maxMilliseconds": 1700, "maxIncreasePercent": 10},
        ),
        "exactly one of `maxMilliseconds` (with `percentile`) and `maxIncreasePercent` must be set",
    ),
    (
        "a latency gate of no form",
        changed("spec.gates.0.latency", {}),
        "exactly one of `maxMilliseconds` (with `percentile`) and `maxIncreasePercent` must be set",
    ),
    (
        "a percentile without a time",
        changed("spec.gates.0.latency", {"percentile": 95, "maxIncreasePercent": 10}),
        "`percentile` and `maxMilliseconds` belong together: set both or neither",
    ),
    (
        "a time without a percentile",
        changed("spec.gates.0.latency", {"maxMilliseconds": 1700}),
        "`percentile` and `maxMilliseconds` belong together: set both or neither",
    ),
    (
        "a margin to pass within the one to fail",
        changed("spec.gates.0.latency", {"maxIncreasePercent": 10, "passMarginPercent": 10}),
        "`passMarginPercent` must be greater than `maxIncreasePercent`, and goes with it",
    ),
    (
        "a margin to pass without a comparison",
        changed(
            "spec.gates.0.latency",
            {"percentile": 95, "maxMilliseconds": 1700, "passMarginPercent": 25},
        ),
        "`passMarginPercent` must be greater than `maxIncreasePercent`, and goes with it",
    ),
    (
        "no gate on what users get but a comparison of what was served",
        changed("spec.gates", [{"name": "a", "latency": {"maxIncreasePercent": 10}}]),
        "must be `errors`, or `latency` with `maxMilliseconds`: a candidate that answers nothing",
    ),
    (
        "a cost gate without a limit",
        changed("spec.gates.0", {"name": "cost", "cost": {}}),
        "at least one of `maxPerImage` and `maxIncreasePercent` must be set",
    ),
    (
        "more memory than there is",
        changed("spec.gates.0", {"name": "memory", "gpuMemory": {"maxPercent": 101}}),
        "maxPercent in body should be less than or equal to 100",
    ),
    (
        "never more often than not at all",
        changed(
            "spec.gates.0", {"name": "oom", "outOfMemory": {"maxCount": 0, "maxTimesStable": 0}}
        ),
        "maxTimesStable in body should be greater than or equal to 1",
    ),
    (
        "a stability that no probe measures yet",
        changed("spec.gates.0", {"name": "batch", "stability": {"kind": "Batch", "max": "0.002"}}),
        'stability.kind: Unsupported value: "Batch": supported values: "Repeat"',
    ),
    (
        "a minimum above the maximum",
        changed("spec.analysis", {"minRequests": 500, "maxRequests": 100}),
        "`minRequests` must be less than or equal to `maxRequests`",
    ),
    (
        "a policy that would promote without proof",
        changed("spec.strategy.onInconclusive", "Promote"),
        'onInconclusive: Unsupported value: "Promote": supported values: "Hold", "Rollback"',
    ),
    (
        "a name that cannot name a Service",
        changed("metadata.name", "1st.images"),
        "`metadata.name` must begin with a letter",
    ),
    (
        "a misspelt field",
        changed("spec.model.pipeline.step", 5),
        'unknown field "spec.model.pipeline.step"',
    ),
]


def create(cluster: Cluster, namespace: str, document: Document, *options: str) -> Document:
    """Create an object as a user does, with kubectl's strict validation."""
    answer = cluster.kubectl(
        *("create", "-n", namespace, "-f", "-", "-o", "yaml", *options),
        given=yaml.safe_dump(document),
    )
    stored: Document = yaml.safe_load(answer)
    return stored


@pytest.mark.parametrize(("case", "change", "message"), BAD, ids=[case for case, *_ in BAD])
def test_a_bad_rollout_is_refused_with_a_readable_message(
    control_plane: Cluster,
    namespace: str,
    case: str,
    change: Callable[[Document], None],
    message: str,
) -> None:
    document = copy.deepcopy(rollout())
    change(document)
    with pytest.raises(CommandError) as refusal:
        create(control_plane, namespace, document)
    assert message in str(refusal.value)


def test_a_good_rollout_is_taken_and_its_defaults_are_visible(
    control_plane: Cluster, namespace: str
) -> None:
    spec = create(control_plane, namespace, rollout())["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["stages"] == [
        {"name": "isolated", "probe": {"suite": "default", "requestsPerMinute": 60}}
    ]
    assert spec["serving"]["gpu"] == {"resourceName": "nvidia.com/gpu", "count": 1}
    assert spec["analysis"]["confidencePercent"] == 95


def test_a_pinned_folder_and_a_choice_of_samplers_are_taken(
    control_plane: Cluster, namespace: str
) -> None:
    document = rollout()
    claim = document["spec"]["model"]["source"]["persistentVolumeClaim"]
    claim["digest"] = "sha256:" + 32 * "0f"
    document["spec"]["model"]["limits"]["allowedSchedulers"] = ["PNDM", "DDIM"]
    stored = create(control_plane, namespace, document)["spec"]["model"]
    assert stored["source"]["persistentVolumeClaim"] == claim
    assert stored["limits"]["allowedSchedulers"] == ["PNDM", "DDIM"]


def test_gates_that_compare_with_stable_are_taken(control_plane: Cluster, namespace: str) -> None:
    gates = [
        {"name": "latency", "latency": {"percentile": 95, "maxMilliseconds": 1700}},
        {"name": "slower", "latency": {"maxIncreasePercent": 10}},
        {"name": "slower-yet", "latency": {"maxIncreasePercent": 5, "passMarginPercent": 30}},
        {"name": "cost", "cost": {"maxPerImage": "0.12", "maxIncreasePercent": 15}},
        {"name": "dearer", "cost": {"maxIncreasePercent": 15}},
        {"name": "oom", "outOfMemory": {"maxCount": 2, "maxTimesStable": 3}},
        {"name": "memory", "gpuMemory": {"maxPercent": 92}},
    ]
    document = rollout()
    document["spec"]["gates"] = gates
    stored = create(control_plane, namespace, document)["spec"]["gates"]
    assert stored == [{**gate, "mode": "Enforce"} for gate in gates]


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_taken(control_plane: Cluster, namespace: str, path: Path) -> None:
    documents = [
        document
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "ModelRollout"
    ]
    for document in documents:
        document["metadata"].pop("namespace", None)
        if path.stem.endswith("refused"):
            with pytest.raises(CommandError):
                create(control_plane, namespace, document, "--dry-run=server")
        else:
            assert create(control_plane, namespace, document, "--dry-run=server")
