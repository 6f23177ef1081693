"""Servers under measurement, each in a process of its own, and the machine they run on."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["Process", "end_in_order", "free_port", "machine", "serve", "started"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 180.0


@dataclass(frozen=True)
class Process:
    """A server that is ready."""

    url: str
    pid: int

    def resident_bytes(self) -> int:
        """Give the memory it holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def cpu_seconds(self) -> float:
        """Give the time that its threads have computed, which other load does not change much."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def end_in_order() -> None:
    """Take SIGTERM as an exit, so that the servers under measurement are ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: Sequence[str], *, port: int, ready_path: str) -> Iterator[Process]:
    """Start a server, wait until it is ready, and end it afterwards.

    Raises
    ------
    RuntimeError
        If it ends, or is not ready in three minutes.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url + ready_path)
        yield Process(url, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server did not become ready: {process.args!r}")


@contextmanager
def serve(arguments: str) -> Iterator[Process]:
    """Run ``imagegen serve`` with these arguments, and what every server here has in common."""
    port, metrics_port = free_port(), free_port()
    common = f"--host 127.0.0.1 --port {port} --metrics-port {metrics_port}"
    command = [sys.executable, "-m", "imagegen", "serve", *arguments.split(), *common.split()]
    with started(command, port=port, ready_path="/v2/health/ready") as process:
        yield process


def machine() -> str:
    """Name the machine and how busy it is: figures of a busy one are noise."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
