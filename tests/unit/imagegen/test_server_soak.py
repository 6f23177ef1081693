"""Nothing of a request stays behind when it has its answer."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from imagegen.contract import METRICS_PATH, TIMEOUT_HEADER
from imagegen.server.jobs import Job, Made
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, MoodyServer, free_port
from tests.unit.imagegen.test_real_process import wait_until_ready

PAGE_BYTES = 4096


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def left_behind() -> int:
    gc.collect()
    return sum(isinstance(each, (Job, Made)) for each in gc.get_objects())


KINDS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"n": 5}, {}),
    ({"n": 0}, {}),
    ({"size": "48x32"}, {}),
    ({"n": 2}, {TIMEOUT_HEADER: "0.005"}),
]
"""Good requests, bad ones, large ones, and one that has no patience."""


def load(http: httpx.Client, numbers: range) -> list[int]:
    """Send requests of all kinds, four at a time; give the statuses of their answers."""

    def one(number: int) -> int:
        fields, headers = KINDS[number % len(KINDS)]
        body = {"prompt": f"kite {number}", "seed": number, **fields}
        return http.post("/v1/images/generations", json=body, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, numbers))


REQUESTS, ROUND, SETTLED = 2000, 100, 500
MOST_GROWTH_BYTES = 1_500_000
"""A server that keeps 1 KiB of a request grows by this much; without a leak it was 0.3 MB."""

TROUBLES = {"failure_rate": 0.02, "out_of_memory_rate": 0.02, "blank_rate": 0.02}


@contextmanager
def troubled_process() -> Iterator[tuple[int, str]]:
    """Run a server in a process of its own, so that nothing else grows in it; give id and URL."""
    port = free_port()
    arguments = f"""serve --engine synthetic --width 32 --height 32 --steps 2 --guidance-scale 5
        --max-steps 4 --max-pixels 4096 --max-batch-size 4 --host 127.0.0.1 --port {port}
        --metrics-port {free_port()} --queue-capacity 64 --synthetic"""
    # The allocator gives back at once what is freed, or a reading would depend on its mood.
    tidy = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments.split(), json.dumps(TROUBLES)],
        env={**os.environ, **tidy},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with client_of(url) as http:
            wait_until_ready(http, process)
        yield process.pid, url
    finally:
        process.kill()
        process.wait()


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, verify=False)  # noqa: S501


def private_bytes(pid: int) -> int:
    """Give the memory that only the process has, not what it maps of files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rows = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return 1024 * (int(rows["Anonymous"]) + int(rows["Swap"]))


def test_memory_is_flat_over_two_thousand_requests() -> None:
    statuses: Counter[int] = Counter()
    held = {}
    with troubled_process() as (pid, url):
        for made in range(0, REQUESTS, ROUND):
            with client_of(url) as http:  # connections come and go too
                statuses.update(load(http, range(made, made + ROUND)))
                http.get(METRICS_PATH)
            held[made + ROUND] = private_bytes(pid)

    assert statuses.keys() >= {200, 400, 500}, statuses
    early = median(held[SETTLED + further] for further in (0, ROUND, 2 * ROUND))
    late = median(held[REQUESTS - further] for further in (0, ROUND, 2 * ROUND))
    assert late - early < MOST_GROWTH_BYTES, held


def test_nothing_is_left_of_requests_of_all_kinds(moody_server: MoodyServer) -> None:
    earlier = left_behind()
    with moody_server(queue_capacity=64) as (server, trouble):
        trouble.fits, trouble.spared_width = 2, 32  # the large ones run out of memory now and then
        load(server.http, range(20))
        before = resident_bytes()
        statuses = load(server.http, range(20, 80))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left_behind() > earlier and time.monotonic() < deadline:
            time.sleep(0.05)

        assert left_behind() <= earlier
        assert {200, 400} <= set(statuses) <= {200, 400, 429, 504}
        assert resident_bytes() - before < 24e6
        assert server.server.state.open_requests == server.server.state.admission.depth() == 0


def test_a_client_that_is_gone_leaves_nothing_behind(moody_server: MoodyServer) -> None:
    earlier = left_behind()
    with moody_server() as (server, trouble):
        trouble.may_go_on.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/v1/images/generations", json={"prompt": "a kite"}, timeout=0.2
            )
        trouble.may_go_on.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left_behind() > earlier and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left_behind() <= earlier
