"""The command line: ``imagegen serve``, ``imagegen probe`` and ``imagegen make-tiny``.

What a command needs is imported when it runs, so that the probe starts without torch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from imagegen import contract

__all__ = ["main"]

_PRECISIONS = ("BFloat16", "Float16", "Float32")
_ARCHITECTURES = ("flux", "sd", "sd3", "sdxl")
_SCALES = ("small", "tiny")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError("must be a number, 0 or more")
    return value


def _rate(text: str) -> float:
    value = _finite(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _edges(text: str) -> tuple[float, ...]:
    try:
        return contract.latency_edges(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="serve a diffusers pipeline from a local folder")
    serve.add_argument("--model", type=Path, required=True, metavar="DIR")
    serve.add_argument("--precision", choices=_PRECISIONS, default="BFloat16")
    serve.add_argument("--scheduler", required=True, help="class name without 'Scheduler'")
    serve.add_argument("--steps", type=_positive, required=True)
    serve.add_argument("--guidance-scale", type=_finite, required=True)
    serve.add_argument("--width", type=_positive, required=True)
    serve.add_argument("--height", type=_positive, required=True)
    serve.add_argument("--max-steps", type=_positive, required=True)
    serve.add_argument("--max-batch-size", type=_positive, default=1)
    serve.add_argument("--max-images-per-request", type=_positive, default=4)
    serve.add_argument("--max-pixels", type=_positive, required=True)
    serve.add_argument("--latency-edges", type=_edges, default=contract.latency_edges())
    serve.add_argument("--revision", default="none")
    serve.add_argument("--model-name", default="default")
    serve.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod listens on its address
    serve.add_argument("--port", type=_positive, default=contract.HTTP_PORT)
    serve.add_argument("--metrics-port", type=_positive, default=contract.METRICS_PORT)
    serve.add_argument("--queue-capacity", type=_positive, default=16)
    serve.add_argument(
        "--request-timeout-seconds", type=_rate, default=contract.REQUEST_TIMEOUT_SECONDS
    )
    serve.add_argument("--drain-seconds", type=_finite, default=20.0)
    serve.add_argument("--termination-log", type=Path, default=Path(contract.TERMINATION_LOG))


def _add_probe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    probe = commands.add_parser("probe", help="measure a candidate, and a stable server beside it")
    probe.add_argument("--candidate", required=True, metavar="URL")
    probe.add_argument("--stable", metavar="URL")
    probe.add_argument("--rate", type=_rate, default=1.0, help="requests per second and arm")
    probe.add_argument("--requests", type=_positive, help="requests per arm (until told to end)")
    probe.add_argument("--repeat-prompts", type=_positive, default=4)
    probe.add_argument("--repeats", type=_positive, default=3)
    probe.add_argument("--suite", default="default")
    probe.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod listens on its address
    probe.add_argument("--metrics-port", type=_positive, default=contract.METRICS_PORT)
    probe.add_argument(
        "--max-in-flight", type=_positive, default=32, help="most open requests at the candidate"
    )
    probe.add_argument(
        "--stable-max-in-flight",
        type=_positive,
        default=1,
        help="most open requests at the stable server, which serves users",
    )
    probe.add_argument("--timeout-seconds", type=_rate, default=contract.PROBE_TIMEOUT_SECONDS)
    probe.add_argument("--ready-seconds", type=_finite, default=120.0)
    probe.add_argument("--repeat-seconds", type=_rate, default=300.0, help="per arm")


def _add_make_tiny(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tiny = commands.add_parser("make-tiny", help="make a tiny pipeline with random weights")
    tiny.add_argument("--architecture", choices=_ARCHITECTURES, default="sd")
    tiny.add_argument("--seed", type=int, default=0, help="seed of the weights")
    tiny.add_argument("--scale", choices=_SCALES, default="tiny")
    tiny.add_argument("--out", type=Path, required=True, metavar="DIR")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="imagegen", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands)
    _add_probe(commands)
    _add_make_tiny(commands)
    return parser


def _serve(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from imagegen.server.lifecycle import serve  # noqa: PLC0415
    from imagegen.server.settings import Defaults, Limits, ServeSettings  # noqa: PLC0415

    settings = ServeSettings(
        model=arguments.model,
        model_name=arguments.model_name,
        revision=arguments.revision,
        precision=arguments.precision,
        scheduler=arguments.scheduler,
        defaults=Defaults(
            steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            width=arguments.width,
            height=arguments.height,
        ),
        limits=Limits(
            max_steps=arguments.max_steps,
            max_batch_size=arguments.max_batch_size,
            max_images_per_request=arguments.max_images_per_request,
            max_pixels=arguments.max_pixels,
        ),
        latency_edges=arguments.latency_edges,
        host=arguments.host,
        port=arguments.port,
        metrics_port=arguments.metrics_port,
        queue_capacity=arguments.queue_capacity,
        request_timeout_seconds=arguments.request_timeout_seconds,
        drain_seconds=arguments.drain_seconds,
        termination_log=arguments.termination_log,
    )
    mistakes = settings.mistakes()
    if mistakes:
        parser.error("; ".join(mistakes))
    return serve(settings)


def _probe(arguments: argparse.Namespace) -> int:
    from imagegen.probe.runner import ProbeSettings, run_probe  # noqa: PLC0415

    return run_probe(
        ProbeSettings(
            candidate=arguments.candidate,
            stable=arguments.stable,
            rate=arguments.rate,
            requests=arguments.requests,
            repeat_prompts=arguments.repeat_prompts,
            repeats=max(2, arguments.repeats),
            suite=arguments.suite,
            host=arguments.host,
            metrics_port=arguments.metrics_port,
            max_in_flight={
                contract.Arm.CANDIDATE: arguments.max_in_flight,
                contract.Arm.STABLE: arguments.stable_max_in_flight,
            },
            timeout_seconds=arguments.timeout_seconds,
            ready_seconds=arguments.ready_seconds,
            repeat_seconds=arguments.repeat_seconds,
        )
    )


def _make_tiny(arguments: argparse.Namespace) -> int:
    from imagegen.miniature.tiny import make_tiny  # noqa: PLC0415

    make_tiny(arguments.architecture, seed=arguments.seed, out=arguments.out, scale=arguments.scale)
    print(f"{arguments.out}: tiny {arguments.architecture} pipeline, seed {arguments.seed}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=os.environ.get("IMAGEGEN_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if arguments.command == "serve":
        return _serve(parser, arguments)
    if arguments.command == "probe":
        return _probe(arguments)
    return _make_tiny(arguments)
