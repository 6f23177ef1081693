"""Administrator's configuration: a YAML file, validated at start.

It holds what users must not choose for themselves: the address of Prometheus, the server images,
the pools of GPU capacity and their prices.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelrollout.errors import Invalid

__all__ = ["Pool", "PrometheusSettings", "Runtime", "Settings", "load_settings"]


class _Strict(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class PrometheusSettings(_Strict):
    """How Prometheus is reached."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    scrape_interval_seconds: Annotated[float, Field(gt=0, le=300)] = 15
    """The interval at which the server pods are scraped."""

    timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10
    bearer_token_file: Path | None = None
    """Read anew for each round of queries, so that a rotated token is taken up."""

    ca_file: Path | None = None


class Pool(_Strict):
    """A class of GPU capacity."""

    gpu_hour_price: Annotated[Decimal, Field(ge=0)]
    """Price of one GPU for one hour."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    priority_class_name: str | None = None
    runtime_class_name: str | None = None


class Runtime(_Strict):
    """A server image of the catalogue."""

    image: Annotated[str, Field(min_length=1)]
    image_pull_policy: Annotated[str, Field(pattern="^(Always|IfNotPresent|Never)$")] = (
        "IfNotPresent"
    )


class Settings(_Strict):
    """The whole file."""

    prometheus: PrometheusSettings
    pools: Annotated[dict[str, Pool], Field(min_length=1)]
    runtimes: Annotated[dict[str, Runtime], Field(min_length=1)]
    resync_seconds: Annotated[float, Field(gt=0, le=600)] = 30
    """Longest time between two looks at a rollout at rest."""


def load_settings(path: Path) -> Settings:
    """Read and validate the configuration file.

    Raises
    ------
    Invalid
        When the file cannot be read or a field is wrong; the message names the field.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Invalid("ConfigurationUnreadable", f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise Invalid("ConfigurationInvalid", f"{path} is not YAML: {error}") from error
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(str(part) for part in item['loc'])}`: {item['msg']}"
            for item in error.errors()
        )
        raise Invalid("ConfigurationInvalid", f"{path}: {problems}") from error
