from __future__ import annotations

from pathlib import Path

import pytest

from imagegen import contract
from imagegen.cli import main
from tests.unit.imagegen.conftest import free_port, serve_arguments


def test_a_model_that_is_not_there_ends_with_code_3_and_a_termination_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    ports = ["--port", str(free_port()), "--metrics-port", str(free_port())]
    code = main(serve_arguments(tmp_path / "nowhere", *ports, "--termination-log", str(log)))

    assert code == 3
    assert log.read_text().startswith("ModelInvalid: model folder")
    assert "ModelInvalid" in capsys.readouterr().err


def test_settings_that_contradict_each_other_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(serve_arguments(tmp_path, "--steps", "50"))
    assert caught.value.code == contract.ExitCode.USAGE
    assert "--steps 50 is above --max-steps" in capsys.readouterr().err


def test_make_tiny_is_the_same_model_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in [("one", "3"), ("same", "3"), ("other", "4")]:
        assert main(["make-tiny", "--seed", seed, "--out", str(tmp_path / name)]) == 0

    def weights(name: str) -> bytes:
        return (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    assert weights("one") == weights("same")
    assert weights("one") != weights("other")
    assert not list(tmp_path.rglob("*.bin"))
