from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from modelrollout.api.base import ApiModel
from modelrollout.api.gate_types import GATE_KINDS, Gate
from modelrollout.api.schema import crd, crd_yaml, structural_schema

ROOT = Path(__file__).parents[3]
FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "const", "additionalProperties"}


def schemas(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "type" in node and isinstance(node["type"], str):
            yield path, node
        for key, child in node.items():
            yield from schemas(child, f"{path}.{key}")


def declared() -> list[tuple[str, dict[str, Any]]]:
    version = crd()["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    return [
        item
        for part in ("spec", "status")
        for item in schemas(root["properties"][part], part)
        if ".default" not in item[0]
    ]


def test_the_checked_in_crd_is_what_the_types_say() -> None:
    assert (ROOT / "crds" / "modelrollouts.modelrollout.dev.yaml").read_text() == crd_yaml()


def test_the_schema_is_structural() -> None:
    for path, node in declared():
        assert not FORBIDDEN & set(node), path


def test_everything_is_bounded() -> None:
    for path, node in declared():
        match node["type"]:
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
                assert "x-kubernetes-list-type" in node, path
            case "integer":
                assert "minimum" in node, path
            case "number":
                raise AssertionError(f"the API holds no floats: {path}")
            case _:
                pass


def test_fields_explain_themselves() -> None:
    for path, node in schemas(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
        if path.startswith(".properties.spec") and node["type"] == "object":
            assert node.get("description"), path


def test_no_default_is_null() -> None:
    def nulls(value: Any) -> bool:
        if isinstance(value, dict):
            return any(item is None or nulls(item) for item in value.values())
        return isinstance(value, list) and any(item is None or nulls(item) for item in value)

    for path, node in declared():
        assert not nulls(node.get("default")), path


def test_the_custom_resource_takes_only_the_stability_that_is_measured() -> None:
    properties = structural_schema(Gate)["properties"]
    assert properties["stability"]["properties"]["kind"]["enum"] == ["Repeat"]
    # While the operator knows all kinds
    batch = {"name": "batch", "stability": {"kind": "Batch", "max": "0.002"}}
    assert Gate.model_validate(batch).stability is not None


def test_every_kind_of_gate_is_a_member_of_which_one_must_be_set() -> None:
    members = set(structural_schema(Gate)["properties"]) - {"name", "mode"}
    assert members == set(GATE_KINDS)


class Union(ApiModel):
    either: int | str


class Unlisted(ApiModel):
    names: Annotated[list[str], Field(max_length=3)]


@pytest.mark.parametrize("model", [Union, Unlisted])
def test_what_a_structural_schema_cannot_say_is_refused(model: type[ApiModel]) -> None:
    with pytest.raises(ValueError, match=r"structural schema|list type"):
        structural_schema(model)
