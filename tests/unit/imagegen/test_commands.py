from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen import contract
from imagegen.cli import main
from imagegen.cli.engines import add_engines, engine_settings, preset_of
from imagegen.cli.values import checks
from imagegen.engines.folder import check_folder
from imagegen.engines.settings import (
    DiffusersSettings,
    HostedSettings,
    StepCache,
    SyntheticSettings,
)
from imagegen.engines.synthetic.rates import SyntheticRates
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


def serve_refuses(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    size = ["--width", "32", "--height", "32", "--max-steps", "8", "--max-pixels", "1024"]
    with pytest.raises(SystemExit) as caught:
        main(["serve", *size, *arguments])
    assert caught.value.code == contract.ExitCode.USAGE
    return capsys.readouterr().err


HOSTED = ["--engine", "hosted", "--hosted-model", "m", "--hosted-url", "https://api.example.com/v1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--engine diffusers needs --model"),
        (["--engine", "magic"], "invalid choice: 'magic'"),
        (["--engine", "synthetic", "--model", "x"], "--model has no meaning with --engine synth"),
        (["--model", "x", "--price-per-image", "1"], "has no meaning with --engine diffusers"),
        (["--model", "x", "--cache", "first-block"], "must be none, first-block:THRESHOLD"),
        (["--model", "x", "--digest", "sha256:12"], "must be sha256: and 64 hexadecimal digits"),
        (["--model", "x", "--digest", 71 * "a"], "must be sha256: and 64 hexadecimal digits"),
        (["--model", "x", "--allow-schedulers", ","], "must be names of samplers"),
        (["--engine", "synthetic", "--allow-schedulers", "DDIM"], "no meaning with --engine synth"),
        (["--engine", "synthetic", "--synthetic", '{"oom": 1}'], "'oom' is no rate; known: seed"),
        (HOSTED, "--engine hosted needs --hosted-allow-host"),
        ([*HOSTED, "--hosted-allow-host", "other"], "which --hosted-allow-host does not name"),
        (
            [*HOSTED, "--hosted-allow-host", "api.example.com", "--hosted-fields", "seed,style"],
            "--hosted-fields style is not one of response_format",
        ),
        (
            [*HOSTED, "--hosted-allow-host", "api.example.com", "--steps", "4"],
            "--steps has no effect: --hosted-fields does not name num_inference_steps",
        ),
        (
            [*HOSTED, "--hosted-allow-host", "api.example.com", "--guidance-scale", "4"],
            "--guidance-scale has no effect: --hosted-fields does not name guidance_scale",
        ),
    ],
)
def test_options_of_engines_that_cannot_be_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in serve_refuses(capsys, *arguments)


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
@pytest.mark.parametrize("number", ["0", "70000", "-1", "8_000", "http"])
def test_a_port_that_cannot_be_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], option: str, number: str
) -> None:
    told = serve_refuses(capsys, "--engine", "synthetic", option, number).splitlines()[-1]
    assert told.endswith(f"argument {option}: must be a whole number from 1 to 65535")


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_a_port_that_cannot_be_had_is_named(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    ports = {"--port": str(free_port()), "--metrics-port": str(free_port())}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports[option] = str(taken.getsockname()[1])
        size = ["--width", "32", "--height", "32", "--max-steps", "8", "--max-pixels", "1024"]
        given = [text for pair in ports.items() for text in pair]
        code = main(["serve", "--engine", "synthetic", *size, "--host", "127.0.0.1", *given])

    assert code == contract.ExitCode.STARTUP_FAILED
    words = f"PortUnavailable: {option} {ports[option]} of --host 127.0.0.1 cannot be used: "
    assert words in capsys.readouterr().err


def test_a_level_of_logging_that_cannot_be_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMAGEGEN_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as caught:
        main(["digest", str(tmp_path)])

    assert caught.value.code == contract.ExitCode.USAGE
    assert "IMAGEGEN_LOG_LEVEL must be one of DEBUG, INFO, " in capsys.readouterr().err
    monkeypatch.setenv("IMAGEGEN_LOG_LEVEL", "debug")
    (tmp_path / "model").touch()
    assert main(["digest", str(tmp_path)]) == 0


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_engines(parser)
    return parser.parse_args(arguments)


def test_every_option_of_an_engine_reaches_its_settings(tmp_path: Path) -> None:
    digest = "sha256:" + 64 * "a"
    options = f"""--model {tmp_path} --precision Float16 --scheduler DDIM --preset turbo
        --allow-schedulers DDIM,PNDM --digest {digest} --attention math --compile regional
        --vae-tiling on --vae-slicing off --offload model --cache taylorseer:3
        --cache-with-batching --deterministic"""
    assert engine_settings(parsed(*options.split())) == DiffusersSettings(
        model=tmp_path,
        precision="Float16",
        scheduler="DDIM",
        allow_schedulers=("DDIM", "PNDM"),
        preset="turbo",
        digest=digest,
        attention="math",
        compile="regional",
        vae_tiling="on",
        vae_slicing="off",
        offload="model",
        cache=StepCache("taylorseer", 3.0),
        cache_with_batching=True,
        deterministic=True,
    )
    options = """--hosted-allow-host api.example.com --hosted-allow-host b --hosted-key-file k
        --hosted-ca-file c --hosted-fields seed,guidance_scale --hosted-timeout-seconds 9
        --price-per-image 0.5 --price-per-hour 2"""
    assert engine_settings(parsed(*HOSTED, *options.split())) == HostedSettings(
        base_url="https://api.example.com/v1",
        model="m",
        allowed_hosts=("api.example.com", "b"),
        key_file=Path("k"),
        ca_file=Path("c"),
        fields=("seed", "guidance_scale"),
        price_per_image=0.5,
        price_per_hour=2.0,
        timeout_seconds=9.0,
    )
    rates = ["--engine", "synthetic", "--synthetic", '{"blank_rate": 0.5}']
    assert engine_settings(parsed(*rates)) == SyntheticSettings(SyntheticRates(blank_rate=0.5))


def test_without_options_the_defaults_of_the_settings_hold(tmp_path: Path) -> None:
    assert engine_settings(parsed("--model", str(tmp_path))) == DiffusersSettings(tmp_path)
    assert engine_settings(parsed("--engine", "synthetic")) == SyntheticSettings()


def test_what_the_command_line_does_not_say_follows_the_kind_of_model(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    xl = DiffusersSettings(model_folder("sdxl"))
    assert preset_of(xl).guidance_scale == 5.0
    assert preset_of(replace(xl, preset="turbo")).steps == 4
    assert preset_of(DiffusersSettings(tmp_path)).name == "standard"
    assert preset_of(SyntheticSettings()).name == "standard"


def test_digest_prints_what_pins_a_folder(
    model_folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["digest", str(model_folder("sd"))]) == 0
    digest = capsys.readouterr().out.strip()
    assert check_folder(model_folder("sd"), digest=digest).digest == digest

    assert main(["digest", str(tmp_path / "nowhere")]) == contract.ExitCode.STARTUP_FAILED
    assert "does not exist" in capsys.readouterr().err


def test_a_model_that_is_not_the_pinned_one_does_not_start(
    model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ports = ["--port", str(free_port()), "--metrics-port", str(free_port())]
    pinned = ["--digest", "sha256:" + 64 * "0"]
    assert main(serve_arguments(model_folder("sd"), *ports, *pinned)) == 3
    assert "it is not the model that was pinned" in capsys.readouterr().err


def test_the_command_line_itself_needs_nothing_heavy() -> None:
    program = """
import sys
import imagegen.cli
heavy = {"torch", "numpy", "PIL", "httpx", "starlette", "diffusers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_make_tiny_is_the_same_model_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in [("one", "3"), ("same", "3"), ("other", "4")]:
        assert main(["make-tiny", "--seed", seed, "--out", str(tmp_path / name)]) == 0

    def weights(name: str) -> bytes:
        return (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    assert weights("one") == weights("same")
    assert weights("one") != weights("other")
    assert not list(tmp_path.rglob("*.bin"))


def test_checks_of_the_watchdog_are_named_and_an_unknown_one_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checks("flat, clipped") == {"flat", "clipped"}
    assert checks("none") == frozenset()
    with pytest.raises(SystemExit) as caught:
        main(serve_arguments(tmp_path, "--watchdog", "flat,blurred"))
    assert caught.value.code == contract.ExitCode.USAGE
    assert "no check 'blurred'; there are: wrong_size, non_finite" in capsys.readouterr().err
