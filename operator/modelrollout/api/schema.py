"""Generator of the CustomResourceDefinition from the pydantic types.

Pydantic emits JSON Schema; the API server takes structural OpenAPI v3 schemas. The differences
are rewritten here: references are inlined, ``anyOf [X, null]`` becomes an optional X, ``const``
becomes a one-element ``enum``, noise goes. Sources: KEP-2335 (structural schemas), KEP-575
(defaulting), KEP-2876 (CEL).
"""

from __future__ import annotations

import inspect
from typing import Any

import yaml
from pydantic import BaseModel

from modelrollout.api.names import GROUP, KIND, PLURAL, SINGULAR, VERSION
from modelrollout.api.spec import Spec
from modelrollout.api.status import Status

__all__ = ["crd", "crd_yaml", "structural_schema"]

JsonObject = dict[str, Any]

_INT32_MAX = 2**31 - 1


def crd() -> JsonObject:
    """Return the CustomResourceDefinition of ``ModelRollout``."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": ["mro"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(),
                }
            ],
        },
    }


def crd_yaml() -> str:
    """Return the CustomResourceDefinition as the YAML that is checked in under ``crds/``."""
    header = "# Generated from operator/modelrollout/api by `make crd`; do not edit.\n"
    return header + yaml.safe_dump(crd(), sort_keys=False, width=100)


def _root_schema() -> JsonObject:
    return {
        "type": "object",
        "description": "A model of an image-generation service, changed only on proof.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                # Revision names, 10 digits and a suffix are added to make the objects' names.
                "properties": {"name": {"type": "string", "maxLength": 40}},
            },
            "spec": structural_schema(Spec),
            "status": structural_schema(Status),
        },
        "x-kubernetes-validations": [
            {
                "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": "`metadata.name` must begin with a letter and hold only lower-case "
                "letters, digits and '-': it names Services",
            }
        ],
    }


def _printer_columns() -> list[JsonObject]:
    def condition(kind: str, member: str) -> str:
        return f".status.conditions[?(@.type=='{kind}')].{member}"

    def column(name: str, path: str, kind: str = "string", priority: int = 0) -> JsonObject:
        return {"name": name, "type": kind, "jsonPath": path, "priority": priority}

    return [
        column("Ready", condition("Ready", "status")),
        column("Stage", ".status.candidate.stage"),
        column("Stable", ".status.stable.revision"),
        column("Candidate", ".status.candidate.revision"),
        column("Requests", ".status.candidate.requests"),
        column("Verdict", ".status.verdict"),
        column("Reason", condition("Promoted", "reason")),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("Message", condition("Promoted", "message"), priority=1),
    ]


def structural_schema(model: type[BaseModel]) -> JsonObject:
    """Return the structural schema of a model.

    Raises
    ------
    ValueError
        When the model uses something that a structural schema cannot say.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _rewrite(document, document.get("$defs", {}))


def _rewrite(node: JsonObject, defs: JsonObject) -> JsonObject:
    node = _inline(node, defs)
    if "anyOf" in node:
        node = _optional(node, defs)
    _refuse_unions(node)
    _tidy(node)
    match node.get("type"):
        case "object":
            node["properties"] = {
                name: _rewrite(child, defs) for name, child in node.get("properties", {}).items()
            }
        case "array":
            node["items"] = _rewrite(node["items"], defs)
            if "x-kubernetes-list-type" not in node:
                raise ValueError(f"every list declares a list type: {node}")
        case "integer":
            node["format"] = "int64" if node.get("maximum", 0) > _INT32_MAX else "int32"
    return node


def _refuse_unions(node: JsonObject) -> None:
    for combinator in ("oneOf", "allOf", "anyOf", "not", "discriminator", "patternProperties"):
        if combinator in node:
            raise ValueError(f"a structural schema cannot hold {combinator!r}: {node}")


def _tidy(node: JsonObject) -> None:
    node.pop("title", None)
    node.pop("additionalProperties", None)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "description" in node:
        node["description"] = " ".join(inspect.cleandoc(node["description"]).split())
    if "default" in node:
        node["default"] = _without_nulls(node["default"])


def _inline(node: JsonObject, defs: JsonObject) -> JsonObject:
    """Replace a reference by what it refers to; members beside the reference win."""
    if "$ref" not in node:
        return {key: value for key, value in node.items() if key != "$defs"}
    target = defs[node["$ref"].rpartition("/")[2]]
    siblings = {key: value for key, value in node.items() if key != "$ref"}
    return {**_inline(target, defs), **siblings}


def _optional(node: JsonObject, defs: JsonObject) -> JsonObject:
    """Turn ``anyOf [X, null]`` with default null into X, which simply may be absent."""
    options = [option for option in node["anyOf"] if option.get("type") != "null"]
    if len(options) != 1:
        raise ValueError(f"a structural schema cannot hold a union: {node}")
    siblings = {
        key: value
        for key, value in node.items()
        if key not in {"anyOf", "title"} and not (key == "default" and value is None)
    }
    return {**_inline(options[0], defs), **siblings}


def _without_nulls(value: Any) -> Any:
    """Leave out absent members: the API server refuses null as the default of a typed field."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
