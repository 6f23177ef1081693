"""``imagegen serve``."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagegen import contract
from imagegen.cli.values import Commands, edges, finite, positive, rate

__all__ = ["add", "run"]

_PRECISIONS = ("BFloat16", "Float16", "Float32")


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser("serve", help="serve a diffusers pipeline from a local folder")
    serve.add_argument("--model", type=Path, required=True, metavar="DIR")
    serve.add_argument("--precision", choices=_PRECISIONS, default="BFloat16")
    serve.add_argument("--scheduler", required=True, help="class name without 'Scheduler'")
    serve.add_argument("--steps", type=positive, required=True)
    serve.add_argument("--guidance-scale", type=finite, required=True)
    serve.add_argument("--width", type=positive, required=True)
    serve.add_argument("--height", type=positive, required=True)
    serve.add_argument("--max-steps", type=positive, required=True)
    serve.add_argument("--max-batch-size", type=positive, default=1)
    serve.add_argument("--max-images-per-request", type=positive, default=4)
    serve.add_argument("--max-pixels", type=positive, required=True)
    serve.add_argument("--latency-edges", type=edges, default=contract.latency_edges())
    serve.add_argument("--revision", default="none")
    serve.add_argument("--model-name", default="default")
    serve.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod listens on its address
    serve.add_argument("--port", type=positive, default=contract.HTTP_PORT)
    serve.add_argument("--metrics-port", type=positive, default=contract.METRICS_PORT)
    serve.add_argument("--queue-capacity", type=positive, default=16)
    serve.add_argument(
        "--request-timeout-seconds", type=rate, default=contract.REQUEST_TIMEOUT_SECONDS
    )
    serve.add_argument("--drain-seconds", type=finite, default=20.0)
    serve.add_argument("--termination-log", type=Path, default=Path(contract.TERMINATION_LOG))


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
    from imagegen.engines.settings import DiffusersSettings  # noqa: PLC0415
    from imagegen.server.lifecycle import serve  # noqa: PLC0415
    from imagegen.server.settings import Defaults, Limits, ServeSettings  # noqa: PLC0415

    settings = ServeSettings(
        engine=DiffusersSettings(
            model=arguments.model,
            precision=arguments.precision,
            scheduler=arguments.scheduler,
        ),
        model_name=arguments.model_name,
        revision=arguments.revision,
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
