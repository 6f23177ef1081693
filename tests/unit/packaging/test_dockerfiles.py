"""The images' recipes: what holds before anything is built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.cluster.images import SOURCES

ROOT = Path(__file__).parents[3]
INFERENCE = (ROOT / "inference_image/Dockerfile").read_text()
OPERATOR = (ROOT / "operator/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
)

WRITABLE = "/tmp"  # noqa: S108 - the pods mount an empty folder there


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def instructions(dockerfile: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def stage(dockerfile: str, number: int) -> list[str]:
    lines = instructions(dockerfile)
    starts = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    end = starts[number + 1] if number + 1 < len(starts) else len(lines)
    return lines[starts[number] : end]


@pytest.mark.parametrize("number", [0, 1])
def test_both_images_make_their_wheel_by_the_same_steps(number: int) -> None:
    assert stage(INFERENCE, number) == stage(OPERATOR, number)


@pytest.mark.parametrize("dockerfile", [INFERENCE, OPERATOR])
def test_our_code_comes_last_and_without_dependencies(dockerfile: str) -> None:
    *_, copy, install, user = stage(dockerfile, 2)

    assert copy == "COPY --from=wheel /wheel /opt/wheel"
    assert "--no-deps --no-index" in install
    assert re.fullmatch(r"USER [1-9]\d+:[1-9]\d+", user), "restricted pods need a numeric user"


@pytest.mark.parametrize("dockerfile", [INFERENCE, OPERATOR])
def test_lower_layers_depend_on_lists_of_packages_alone(dockerfile: str) -> None:
    copies = [line for line in stage(dockerfile, 2) if line.startswith("COPY ")]

    assert all(line.startswith("COPY --from=requirements /lists/") for line in copies[:-1])


@pytest.mark.parametrize("dockerfile", [INFERENCE, OPERATOR])
def test_nothing_is_written_outside_tmp(dockerfile: str) -> None:
    settings = dict(re.findall(r"\b([A-Z_]*(?:HOME|DIR|CACHE_PATH))=(\S+)", dockerfile))

    assert settings["HOME"] == WRITABLE
    assert all(path.startswith(WRITABLE) for path in settings.values())


def test_the_builder_is_sent_what_the_images_are_named_by() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert {line[1:] for line in lines if line.startswith("!")} == set(SOURCES)
    assert "*" in lines


def test_every_requirement_is_pinned() -> None:
    pinned = {canonical(name) for name in PINS}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["inference"]
    names = {canonical(re.split(r"[<>=!~\[; ]", item)[0]) for item in wanted}

    assert names - pinned == set()


def test_torch_and_what_it_is_linked_to_are_one_layer() -> None:
    pattern = re.search(r"grep -E '(\^\(torch[^']+)' constraints.txt", INFERENCE)
    assert pattern is not None
    heavy = [name for name, pin in PINS.items() if re.match(pattern[1], f"{name}=={pin}")]

    assert {"torch", "triton", "nvidia-cudnn-cu13", "cuda-toolkit"} <= set(heavy)
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in heavy)


def test_torchvision_is_nowhere() -> None:
    assert "torchvision" not in PINS
    assert "torchvision" not in INFERENCE
