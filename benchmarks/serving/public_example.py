"""Compare with the example server of the diffusers project, on the same model and load.

The example (examples/server/server.py) is not part of this repository: name the file of a checkout.
It needs fastapi, which this project does not. It wants a GPU; here it gets a tiny model on the CPU
instead of the one that it would load, and nothing else of it is changed. It makes one image of the
model's own size in 28 steps per request.

    python -m benchmarks.serving.public_example /path/to/examples/server/server.py
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.serving import load
from benchmarks.serving.processes import Process, end_in_order, free_port, machine, serve, started

_SIDE, _STEPS = 32, 28
_CLIENTS = (1, 8)


def host(file: Path, model: Path, port: int) -> None:
    """Run the example with a model on the CPU, until it is ended."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415

    torch.set_num_threads(1)
    specification = importlib.util.spec_from_file_location("public_example_server", file)
    assert specification is not None
    assert specification.loader is not None
    module: Any = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # its types are looked up by name
    specification.loader.exec_module(module)

    def start() -> None:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(model, local_files_only=True)
        module.shared_pipeline.pipeline = pipeline
        module.shared_pipeline.device = "cpu"

    module.shared_pipeline.start = start
    uvicorn.run(module.app, host="127.0.0.1", port=port, log_level="error")


def _example(file: Path, model: Path) -> AbstractContextManager[Process]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving.public_example", str(file)]
    command += ["--host-model", str(model), "--port", str(port)]
    return started(command, port=port, ready_path="/")


def _ours(model: Path) -> AbstractContextManager[Process]:
    return serve(
        f"""--model {model} --precision Float32 --steps {_STEPS} --guidance-scale 7 --width {_SIDE}
        --height {_SIDE} --max-steps {_STEPS} --max-pixels {_SIDE * _SIDE} --max-batch-size 4
        --queue-capacity 64"""
    )


def _body(_number: int) -> dict[str, Any]:
    return {"prompt": "a kite", "model": "default"}


def compare(file: Path, *, requests: int, rounds: int) -> list[str]:
    """Measure both, turn about; give lines of a Markdown table."""
    from imagegen.miniature.tiny import make_tiny  # noqa: PLC0415 - imports torch

    speeds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_tiny("sd3", seed=1, out=model)
        failed: dict[tuple[str, int], int] = {}
        with _example(file, model) as example, _ours(model) as ours:
            for _ in range(rounds):
                for name, process in (("example", example), ("imagegen", ours)):
                    for count in _CLIENTS:
                        key = (name, count)
                        answers, seconds = load.clients(
                            process.url, count, requests=requests, body=_body
                        )
                        good = sum(answer.status == 200 for answer in answers)
                        failed[key] = failed.get(key, 0) + requests - good
                        speeds.setdefault(key, []).append(good / seconds)
    rows = ["| server | clients | images per second | failed |", "| --- " * 4 + "|"]
    for (name, count), each in speeds.items():
        speed, bad = statistics.median(each), failed[name, count]
        rows.append(f"| {name} | {count} | {speed:.2f} | {bad} of {requests * rounds} |")
    return rows


def main(arguments: list[str]) -> int:
    """Compare; or, as a process of its own, run the example."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.public_example")
    parser.add_argument("file", type=Path)
    parser.add_argument("--requests", type=int, default=24, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--host-model", type=Path, help="run the example with this model")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.host_model is not None:
        host(options.file, options.host_model, options.port)
        return 0
    end_in_order()
    print(machine())
    print(*compare(options.file, requests=options.requests, rounds=options.rounds), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
