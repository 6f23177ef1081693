"""The chart's values: defaults, examples and mistakes, by the schema and by the operator."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelrollout.settings import Pool, PrometheusSettings, Runtime, Settings, load_settings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm/modelrollout"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
EXAMPLES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))

Values = dict[str, Any]


def merged(base: Values, over: Values) -> Values:
    """Lay values over others as Helm does: maps are merged, everything else is replaced."""
    result: Values = copy.deepcopy(base)
    for key, value in over.items():
        old = result.get(key)
        maps = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(result[key], value) if maps else value
    return result


def values(over: Values | None = None) -> Values:
    return merged(yaml.safe_load((CHART / "values.yaml").read_text()), over or {})


def example(name: str) -> Values:
    return values(yaml.safe_load((CHART / "ci" / name).read_text()))


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_defaults_fit_the_schema_and_the_operator(tmp_path: Path) -> None:
    given = values()

    jsonschema.validate(given, SCHEMA)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(given["config"]))
    assert load_settings(file).resync_seconds == 30


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_the_schema_and_the_operator(name: str, tmp_path: Path) -> None:
    given = example(name)

    jsonschema.validate(given, SCHEMA)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(given["config"]))
    assert load_settings(file).pools.keys() == given["config"]["pools"].keys()


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"replicas": 2}, "replicas"),
        ({"image": {"digest": "latest"}}, "latest"),
        ({"scope": {"namespaces": ["Studio"]}}, "Studio"),
        ({"config": {"prometheus": {"url": "prometheus:9090"}}}, "prometheus:9090"),
        ({"config": {"prometheus": {"timeoutSeconds": 0}}}, "0"),
        ({"config": {"pools": {"default": {"gpuHourPrice": -1}}}}, "-1"),
        ({"config": {"pools": {"default": {"price": 1}}}}, "price"),
        ({"config": {"runtimes": {"default": {"imagePullPolicy": "Sometimes"}}}}, "Sometimes"),
        ({"config": {"runtimes": {"not a name": {"image": "x"}}}}, "not a name"),
        ({"config": {"resyncSeconds": 601}}, "601"),
    ],
)
def test_mistakes_are_refused_by_name(over: Values, said: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=re.escape(said)):
        jsonschema.validate(values(over), SCHEMA)


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (Settings, SCHEMA["properties"]["config"]),
        (PrometheusSettings, SCHEMA["properties"]["config"]["properties"]["prometheus"]),
        (Pool, SCHEMA["definitions"]["pool"]),
        (Runtime, SCHEMA["definitions"]["runtime"]),
    ],
)
def test_the_schema_has_the_fields_of_the_operators_settings(
    model: type[Settings | PrometheusSettings | Pool | Runtime], schema: Values
) -> None:
    wanted = model.model_json_schema(by_alias=True)

    assert schema["properties"].keys() == wanted["properties"].keys()
    assert set(schema["required"]) == set(wanted["required"])
    assert schema["additionalProperties"] is False


def test_every_value_is_described() -> None:
    undescribed = [
        path
        for path, schema in _objects(SCHEMA)
        if not schema.get("description", schema.get("$ref"))
    ]

    assert undescribed == []


def _objects(schema: Values, path: str = "") -> list[tuple[str, Values]]:
    found = []
    for name, part in schema.get("properties", {}).items():
        found += [(f"{path}.{name}", part), *_objects(part, f"{path}.{name}")]
    return found


def test_the_readme_tells_of_every_value() -> None:
    readme = (CHART / "README.md").read_text()

    assert [name for name in SCHEMA["properties"] if f"`{name}" not in readme] == ["global"]


def test_the_charts_crd_is_the_generated_one() -> None:
    name = "modelrollouts.modelrollout.dev.yaml"
    generated = (ROOT / "crds" / name).read_text()

    assert (CHART / "files/crds" / name).read_text() == generated, "run `make crd`"
    assert len(re.findall(r"^metadata:$", generated, re.MULTILINE)) == 1


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["version"] == chart["appVersion"] == version
    assert values()["config"]["runtimes"]["default"]["image"].endswith(f":{version}")
