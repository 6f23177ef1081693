"""``imagegen probe``."""

from __future__ import annotations

import argparse

from imagegen import contract
from imagegen.cli.values import Commands, finite, port, positive, rate

__all__ = ["add", "run"]


def add(commands: Commands) -> None:
    """Add the command."""
    probe = commands.add_parser("probe", help="measure a candidate, and a stable server beside it")
    probe.add_argument("--candidate", required=True, metavar="URL")
    probe.add_argument("--stable", metavar="URL")
    probe.add_argument("--rate", type=rate, default=1.0, help="requests per second and arm")
    probe.add_argument("--requests", type=positive, help="requests per arm (until told to end)")
    probe.add_argument("--repeat-prompts", type=positive, default=4)
    probe.add_argument("--repeats", type=positive, default=3)
    probe.add_argument("--suite", default="default")
    probe.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod listens on its address
    probe.add_argument("--metrics-port", type=port, default=contract.METRICS_PORT)
    probe.add_argument(
        "--max-in-flight", type=positive, default=32, help="most open requests at the candidate"
    )
    probe.add_argument(
        "--stable-max-in-flight",
        type=positive,
        default=1,
        help="most open requests at the stable server, which serves users",
    )
    probe.add_argument("--timeout-seconds", type=rate, default=contract.PROBE_TIMEOUT_SECONDS)
    probe.add_argument("--ready-seconds", type=finite, default=120.0)
    probe.add_argument("--repeat-seconds", type=rate, default=300.0, help="per arm")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
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
