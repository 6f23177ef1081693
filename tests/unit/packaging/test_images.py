"""Names of images: they follow what goes in, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster import images


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (".dockerignore", "pyproject.toml", "constraints.txt", "README.md"):
        (tmp_path / name).write_text(name)
    for name in ("operator/modelrollout/app.py", "inference_image/imagegen/server.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    for name in ("operator", "inference_image"):
        (tmp_path / name / "Dockerfile").write_text(f"FROM {name}\n")
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    return tmp_path


def name(*arguments: str) -> str:
    return images._Recipe("operator", "operator/Dockerfile", arguments).name


def test_a_name_has_a_registry_and_a_hash() -> None:
    assert re.fullmatch(r"modelrollout\.local/operator:[0-9a-f]{12}", name())


@pytest.mark.parametrize(
    "changed",
    [
        "operator/modelrollout/app.py",
        "operator/modelrollout/new.py",
        "inference_image/imagegen/server.py",
        "constraints.txt",
        "pyproject.toml",
        "operator/Dockerfile",
        ".dockerignore",
    ],
)
def test_what_goes_in_changes_the_name(project: Path, changed: str) -> None:
    before = name()

    (project / changed).write_text("other")

    assert name() != before


@pytest.mark.parametrize(
    "changed",
    [
        "operator/modelrollout/__pycache__/app.cpython-311.pyc",
        "inference_image/Dockerfile",
        "docs/page.md",
        "examples/models/miniature/unet/diffusion_pytorch_model.safetensors",
    ],
)
def test_what_stays_out_does_not(project: Path, changed: str) -> None:
    before = name()

    (project / changed).parent.mkdir(parents=True, exist_ok=True)
    (project / changed).write_text("other")

    assert name() == before


def test_variants_have_names_of_their_own(project: Path) -> None:
    assert name("VARIANT=cpu") != name("VARIANT=cuda")


def test_values_for_the_chart_name_both_images() -> None:
    built = images.Images(
        inference=images.Image("modelrollout.local/inference:aa", Path("a")),
        operator=images.Image("modelrollout.local/operator:bb", Path("b")),
    )

    assert built.helm_values() == {
        "image": {"repository": "modelrollout.local/operator", "tag": "bb"},
        "config": {"runtimes": {"default": {"image": "modelrollout.local/inference:aa"}}},
    }
