from typing import Any

import pytest

from modelrollout.api.revision import RevisionContent, criteria_digest, revision_hash
from modelrollout.api.spec import Spec
from tests.unit.rollout.story import spec_document


def name(document: dict[str, Any]) -> str:
    return revision_hash(RevisionContent.of(Spec.model_validate(document)))


def test_the_name_depends_on_nothing_but_the_content() -> None:
    document = spec_document()
    assert name(document) == name(spec_document())
    assert name(document) == name({**document, "replicas": 4})
    assert name(document) == name({**document, "analysis": {"minRequests": 50}})


@pytest.mark.parametrize(
    "change",
    [
        {"pool": "export"},
        {"steps": 11},
        {"serving": {"runtime": "next"}},
        {"serving": {"resources": {"limits": {"memory": "2Gi"}}}},
    ],
)
def test_what_the_pods_are_made_of_changes_the_name(change: dict[str, Any]) -> None:
    assert name(spec_document()) != name(spec_document(**change))


def test_a_default_written_out_is_the_same_revision() -> None:
    written = spec_document(serving={"runtime": "default", "gpu": {"count": 1}})
    assert name(written) == name(spec_document())


def test_names_of_released_revisions_never_change() -> None:
    # A changed value here would start an attempt of every rollout when the operator is upgraded.
    assert name(spec_document()) == "07cf3d7ad9"


def test_criteria_are_gates_analysis_and_strategy() -> None:
    def digest(**changes: Any) -> str:
        return criteria_digest(Spec.model_validate(spec_document(**changes)))

    assert digest() == digest(steps=12) == digest(replicas=3)
    assert digest() != digest(analysis={"minRequests": 31})
    assert digest() != digest(strategy={"onFailure": "Hold"})
