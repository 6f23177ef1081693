"""What the operator tells a server, read by the server itself."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from pydantic import ValidationError

from imagegen.cli.engines import engine_settings
from imagegen.cli.serve import add
from imagegen.engines.settings import DiffusersSettings
from modelrollout.api.revision import RevisionContent
from modelrollout.api.spec import Spec
from modelrollout.cluster.build import Owner, deployment
from modelrollout.rollout.desired import Server
from modelrollout.settings import Pool, Runtime
from tests.unit.rollout.story import revision_of, spec_document

DIGEST = "sha256:" + 64 * "a"


def document(*, source: dict[str, Any] | None = None, **limits: Any) -> dict[str, Any]:
    spec = spec_document()
    spec["model"]["source"]["persistentVolumeClaim"].update(source or {})
    spec["model"]["limits"].update(limits)
    return spec


def pod_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Build the pod of a server."""
    content = RevisionContent.of(Spec.model_validate(spec))
    built = deployment(
        Owner("team", "images", "uid"),
        Server(revision="0123456789", replicas=1, content=content, latency_edges=(500,)),
        content,
        Pool.model_validate({"gpuHourPrice": "3"}),
        Runtime.model_validate({"image": "registry.example/imagegen:1"}),
    )
    pod: dict[str, Any] = built["spec"]["template"]["spec"]
    return pod


def arguments_of(pod: dict[str, Any]) -> argparse.Namespace:
    """Give what the server understands of the arguments that its container gets."""
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    return parser.parse_args(pod["containers"][0]["args"])


def server_settings(spec: dict[str, Any]) -> DiffusersSettings:
    settings = engine_settings(arguments_of(pod_of(spec)))
    assert isinstance(settings, DiffusersSettings)
    return settings


def test_a_server_that_ends_has_all_its_time_to_finish_what_it_accepted() -> None:
    pod = pod_of(document())
    waited = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    spent = waited + arguments_of(pod).drain_seconds

    assert spent + 5 == pod["terminationGracePeriodSeconds"]


def test_a_declared_digest_pins_the_folder_of_the_server() -> None:
    assert server_settings(document(source={"digest": DIGEST})).digest == DIGEST
    assert server_settings(document()).digest is None


def test_declared_samplers_are_those_that_requests_may_choose() -> None:
    allowed = server_settings(document(allowedSchedulers=["PNDM", "DDIM"])).allow_schedulers
    assert allowed == ("DDIM", "PNDM")
    assert server_settings(document()).allow_schedulers is None


def test_another_digest_or_other_samplers_are_another_revision() -> None:
    names = [
        revision_of(document()),
        revision_of(document(source={"digest": DIGEST})),
        revision_of(document(source={"digest": "sha256:" + 64 * "b"})),
        revision_of(document(allowedSchedulers=["DDIM"])),
        revision_of(document(allowedSchedulers=["DDIM", "PNDM"])),
    ]
    assert len(set(names)) == len(names)
    # The API server takes it for a set, whose order says nothing.
    assert revision_of(document(allowedSchedulers=["PNDM", "DDIM"])) == names[-1]


@pytest.mark.parametrize(
    "digest", ["", "a" * 64, "sha256:12", "md5:" + 64 * "a", DIGEST.upper(), DIGEST + "\n"]
)
def test_what_the_server_would_not_take_for_a_digest_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(document(source={"digest": digest}))
