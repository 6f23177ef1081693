"""The options of ``imagegen serve`` that choose and tune an engine."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from imagegen.cli.values import finite, rate
from imagegen.engines.folder import check_folder
from imagegen.engines.hosted.settings import FIELDS, HOUR_SECONDS, HostedSettings
from imagegen.engines.presets import PRESETS, Preset, preset_for
from imagegen.engines.settings import (
    CHOICES,
    DiffusersSettings,
    EngineSettings,
    StepCache,
    SyntheticSettings,
)
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.errors import StartupError

__all__ = ["ENGINES", "add_engines", "engine_settings", "preset_of"]

ENGINES: Final = ("diffusers", "hosted", "synthetic")

_T = TypeVar("_T")


def _explained(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse show why a value is refused."""

    def checked(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _digest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("must be sha256: and 64 hexadecimal digits")
    return text


def _fields(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _schedulers(text: str) -> tuple[str, ...]:
    names = _fields(text)
    if not names:
        raise argparse.ArgumentTypeError("must be names of samplers, separated by commas")
    return names


def add_engines(serve: argparse.ArgumentParser) -> None:
    """Add the options; those of an engine that is not chosen may not be given."""
    serve.add_argument("--engine", choices=ENGINES, default="diffusers")
    _add_diffusers(serve.add_argument_group("engine diffusers: a pipeline in a local folder"))
    _add_hosted(serve.add_argument_group("engine hosted: an OpenAI-compatible images API"))
    synthetic = serve.add_argument_group("engine synthetic: draws quoted texts, for tests")
    synthetic.add_argument(
        "--synthetic",
        type=_explained(SyntheticRates.read),
        metavar="RATES",
        help="declared rates: a JSON file, or the JSON itself",
    )


def _add_diffusers(group: argparse._ArgumentGroup) -> None:
    def choose(option: str, text: str) -> None:
        name = option.removeprefix("--").replace("-", "_")
        default = getattr(DiffusersSettings, name)
        group.add_argument(option, choices=CHOICES[name], help=f"{text} (default {default})")

    group.add_argument("--model", type=Path, metavar="DIR")
    group.add_argument(
        "--digest", type=_digest, help="refuse another folder than that of 'imagegen digest DIR'"
    )
    group.add_argument(
        "--preset",
        choices=("auto", *PRESETS),
        help="defaults and limits of a kind of model (default auto: as its files tell)",
    )
    choose("--precision", "number format of the weights")
    group.add_argument("--scheduler", help="class name without 'Scheduler' (default the model's)")
    group.add_argument(
        "--allow-schedulers",
        type=_schedulers,
        metavar="NAMES",
        help="samplers that requests may choose, separated by commas, besides the server's own "
        "(default: all that fit the model)",
    )
    choose("--attention", "kernel of the attention layers")
    choose("--compile", "compile the denoiser's repeated blocks")
    choose("--vae-tiling", "decode in tiles; auto: when memory runs out")
    choose("--vae-slicing", "decode picture by picture; auto: above a megapixel")
    choose("--offload", "keep weights in the host's memory until needed")
    group.add_argument(
        "--cache",
        type=_explained(StepCache.parse),
        metavar="CACHE",
        help="reuse work between steps: none, first-block:THRESHOLD or taylorseer:INTERVAL",
    )
    group.add_argument(
        "--cache-with-batching",
        action="store_const",
        const=True,
        help="accept that with a first-block cache the others of a batch change a picture",
    )
    group.add_argument(
        "--deterministic",
        action="store_const",
        const=True,
        help="the same bits for the same batch on the same device; slower",
    )


def _add_hosted(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--hosted-url", metavar="URL", help="up to and including /v1")
    group.add_argument("--hosted-model", metavar="NAME", help="the API's name of the model")
    group.add_argument(
        "--hosted-allow-host",
        action="append",
        metavar="HOST",
        help="host that may be connected to; may be repeated",
    )
    group.add_argument("--hosted-key-file", type=Path, metavar="FILE", help="read for every call")
    group.add_argument("--hosted-ca-file", type=Path, metavar="FILE", help="certificates to trust")
    group.add_argument(
        "--hosted-fields",
        type=_fields,
        metavar="NAMES",
        help=f"fields that the API takes, of {', '.join(FIELDS)} (default none)",
    )
    group.add_argument("--hosted-timeout-seconds", type=rate, metavar="SECONDS")
    group.add_argument("--price-per-image", type=finite, metavar="PRICE")
    group.add_argument(
        "--price-per-hour",
        type=rate,
        metavar="PRICE",
        help="of the pool's devices that the pod is counted for "
        f"(default {HOUR_SECONDS:g}: a busy second is one unit of the currency)",
    )


_DIFFUSERS: Final = tuple(DiffusersSettings.__dataclass_fields__)
_HOSTED: Final = {
    "hosted_url": "base_url",
    "hosted_model": "model",
    "hosted_allow_host": "allowed_hosts",
    "hosted_key_file": "key_file",
    "hosted_ca_file": "ca_file",
    "hosted_fields": "fields",
    "hosted_timeout_seconds": "timeout_seconds",
    "price_per_image": "price_per_image",
    "price_per_hour": "price_per_hour",
}
_HOSTED_DEFAULTS: Final = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
"""Options of all engines that need a field of the API to have an effect."""

_OPTIONS: Final = {"diffusers": _DIFFUSERS, "hosted": tuple(_HOSTED), "synthetic": ("synthetic",)}
_REQUIRED: Final = {
    "diffusers": ("model",),
    "hosted": ("hosted_url", "hosted_model", "hosted_allow_host"),
    "synthetic": (),
}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    """Give the settings of the chosen engine.

    Raises
    ------
    ValueError
        For options that are missing, belong to another engine or cannot be.
    """
    engine = arguments.engine
    given = {
        name: value
        for names in _OPTIONS.values()
        for name in names
        if (value := getattr(arguments, name)) is not None
    }
    foreign = [name for name in given if name not in _OPTIONS[engine]]
    if foreign:
        raise ValueError(f"{_option(foreign[0])} has no meaning with --engine {engine}")
    missing = [name for name in _REQUIRED[engine] if name not in given]
    if missing:
        raise ValueError(f"--engine {engine} needs {', '.join(map(_option, missing))}")
    if engine == "synthetic":
        return SyntheticSettings(given.get("synthetic", SyntheticRates()))
    if engine == "diffusers":
        return DiffusersSettings(**given)
    defaults = {
        name: field
        for name, field in _HOSTED_DEFAULTS.items()
        if getattr(arguments, name, None) is not None
    }
    return _hosted({_HOSTED[name]: value for name, value in given.items()}, defaults)


def _hosted(values: dict[str, Any], defaults: dict[str, str]) -> HostedSettings:
    settings = HostedSettings(**{**values, "allowed_hosts": tuple(values["allowed_hosts"])})
    mistakes = settings.mistakes() + [
        f"{_option(name)} has no effect: --hosted-fields does not name {field}"
        for name, field in defaults.items()
        if field not in settings.fields
    ]
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return settings


def preset_of(settings: EngineSettings) -> Preset:
    """Give what is usual for a model, for what the command line does not say."""
    if isinstance(settings, DiffusersSettings):
        try:
            return preset_for(check_folder(settings.model), settings.preset)
        except StartupError:
            pass  # when the model is loaded, the same is found again and told
    return PRESETS["standard"]
