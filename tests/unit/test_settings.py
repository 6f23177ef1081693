"""The administrator's configuration: what is wrong is named, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrollout.errors import Invalid
from modelrollout.settings import load_settings

GOOD: dict[str, Any] = {
    "prometheus": {"url": "http://prometheus:9090"},
    "pools": {"preview": {"gpuHourPrice": "2.50"}},
    "runtimes": {"default": {"image": "inference:1"}},
}


def test_the_smallest_file_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    settings = load_settings(file)
    assert settings.prometheus.scrape_interval_seconds == 15
    assert str(settings.pools["preview"].gpu_hour_price) == "2.50"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prometheus": {"url": "prometheus:9090"}}, "`prometheus.url`"),
        ({"prometheus": {"url": "http://p", "scrapeInterval": 5}}, "`prometheus.scrapeInterval`"),
        ({"pools": {}}, "`pools`"),
        ({"pools": {"preview": {"gpuHourPrice": "-1"}}}, "`pools.preview.gpuHourPrice`"),
        ({"runtimes": {"default": {}}}, "`runtimes.default.image`"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(Invalid) as refusal:
        load_settings(file)
    assert named in refusal.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")


def test_what_is_no_yaml_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: [")
    with pytest.raises(Invalid, match="not YAML"):
        load_settings(file)
