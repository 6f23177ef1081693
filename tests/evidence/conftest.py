"""A real Prometheus on the loopback that scrapes real metrics of servers in this process."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from tests.cluster import binaries, pki
from tests.cluster.processes import wait_for
from tests.cluster.progress import Progress
from tests.cluster.upstreams import PROMETHEUS

SCRAPE_SECONDS = 0.25


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


@dataclass
class Pod:
    """Metrics served as a pod serves them."""

    labels: dict[str, str]
    registry: CollectorRegistry
    port: int = field(default_factory=free_port)
    stop: Callable[[], None] = field(default=lambda: None)

    def start(self) -> None:
        server, thread = start_http_server(self.port, "127.0.0.1", self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()
            self.stop = lambda: None

        self.stop = stop


@dataclass
class RealPrometheus:
    """A Prometheus process that can be stopped and started again."""

    program: Path
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    pki: Path | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.pki else ''}://127.0.0.1:{self.port}"

    def encrypt(self) -> Path:
        """Serve TLS with a certificate of an authority of its own; return the authority's file."""
        self.pki = self.folder / "pki"
        self.pki.mkdir(parents=True)
        pki.create(self.pki, [pki.Identity("server", "prometheus", names=("IP:127.0.0.1",))])
        return self.pki / "ca.crt"

    def scrape(self, jobs: dict[str, list[Pod]]) -> None:
        """Configure what is scraped: pods by the name of the job."""
        interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
        configuration: dict[str, Any] = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{pod.port}"], "labels": pod.labels} for pod in pods
                    ],
                }
                for job, pods in jobs.items()
            ],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def start(self) -> None:
        arguments = []
        if self.pki is not None:
            files = {"cert_file": self.pki / "server.crt", "key_file": self.pki / "server.key"}
            web = {"tls_server_config": {name: str(path) for name, path in files.items()}}
            (self.folder / "web.yml").write_text(yaml.safe_dump(web))
            arguments = [f"--web.config.file={self.folder / 'web.yml'}"]
        with (self.folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.program,
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    # It would wait 5 s before it takes up its targets.
                    "--scrape.discovery-reload-interval=50ms",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    *arguments,
                ],
                stdout=log,
                stderr=log,
            )
        trusted = str(self.pki / "ca.crt") if self.pki else True
        wait_for(
            lambda: requests.get(self.url + "/-/ready", timeout=5, verify=trusted).ok,
            what="A ready Prometheus",
            timeout=30,
            why=(self.folder / "prometheus.log").read_text,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
            self.process = None


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """The program, found as the test cluster finds it."""
    if binaries.find("prometheus") is None:
        with Progress() as progress:
            binaries.ensure((PROMETHEUS,), progress)
    return binaries.path_of("prometheus")


@pytest.fixture
def prometheus(prometheus_program: Path, tmp_path: Path) -> Iterator[RealPrometheus]:
    """A Prometheus that is configured and started by the test."""
    server = RealPrometheus(prometheus_program, tmp_path / "prometheus")
    yield server
    server.stop()
