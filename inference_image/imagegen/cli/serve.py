"""``imagegen serve``."""

from __future__ import annotations

import argparse
from pathlib import Path

from imagegen import contract
from imagegen.cli.engines import add_engines, engine_settings, preset_of
from imagegen.cli.values import Commands, checks, edges, finite, port, positive, rate
from imagegen.engines.settings import EngineSettings
from imagegen.server.settings import Defaults, Limits

__all__ = ["add", "run"]


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser("serve", help="serve a model: a local one, or one elsewhere")
    add_engines(serve)
    serve.add_argument("--steps", type=positive, help="default: what the model's kind takes")
    serve.add_argument("--guidance-scale", type=finite, help="default: likewise")
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
    serve.add_argument("--port", type=port, default=contract.HTTP_PORT)
    serve.add_argument("--metrics-port", type=port, default=contract.METRICS_PORT)
    serve.add_argument("--queue-capacity", type=positive, default=16, help="requests that wait")
    serve.add_argument(
        "--queue-seconds",
        type=rate,
        help="estimated time of the model for all accepted work (default: the request's time-out)",
    )
    serve.add_argument(
        "--batch-window-ms",
        type=finite,
        default=5.0,
        help="longest that a request waits for others to run with it, if others may come",
    )
    serve.add_argument(
        "--watchdog",
        type=checks,
        default=frozenset(contract.WATCHDOG_CHECKS),
        metavar="CHECKS",
        help=f"checks of finished images, separated by commas (default: all), or none; there are: "
        f"{', '.join(contract.WATCHDOG_CHECKS)}",
    )
    serve.add_argument(
        "--request-timeout-seconds", type=rate, default=contract.REQUEST_TIMEOUT_SECONDS
    )
    serve.add_argument("--drain-seconds", type=finite, default=20.0)
    serve.add_argument("--termination-log", type=Path, default=Path(contract.TERMINATION_LOG))


def _defaults(arguments: argparse.Namespace, engine: EngineSettings) -> Defaults:
    steps, guidance_scale = arguments.steps, arguments.guidance_scale
    if steps is None or guidance_scale is None:
        usual = preset_of(engine)
        steps = steps or min(usual.steps, arguments.max_steps)
        guidance_scale = usual.guidance_scale if guidance_scale is None else guidance_scale
    return Defaults(
        steps=steps,
        guidance_scale=guidance_scale,
        width=arguments.width,
        height=arguments.height,
    )


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
    from imagegen.server.lifecycle import serve  # noqa: PLC0415
    from imagegen.server.settings import ServeSettings  # noqa: PLC0415

    try:
        engine = engine_settings(arguments)
    except ValueError as error:
        parser.error(str(error))
    settings = ServeSettings(
        engine=engine,
        model_name=arguments.model_name,
        revision=arguments.revision,
        defaults=_defaults(arguments, engine),
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
        queue_seconds=arguments.queue_seconds,
        batch_window_seconds=arguments.batch_window_ms / 1000,
        watchdog=arguments.watchdog,
        request_timeout_seconds=arguments.request_timeout_seconds,
        drain_seconds=arguments.drain_seconds,
        termination_log=arguments.termination_log,
    )
    mistakes = settings.mistakes()
    if mistakes:
        parser.error("; ".join(mistakes))
    return serve(settings)
