"""Nothing of a request stays behind when it has its answer."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from imagegen.contract import TIMEOUT_HEADER
from imagegen.server.jobs import Job, Made
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, MoodyServer, Running

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


def load(server: Running, requests: int) -> list[int]:
    """Send requests of all kinds, four at a time; give the statuses of their answers."""

    def one(number: int) -> int:
        fields, headers = KINDS[number % len(KINDS)]
        body = {"prompt": f"kite {number}", "seed": number, **fields}
        answer = server.http.post("/v1/images/generations", json=body, headers=headers)
        return answer.status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(requests)))


def test_memory_is_flat_over_requests_of_all_kinds(moody_server: MoodyServer) -> None:
    earlier = left_behind()
    with moody_server(queue_capacity=64) as (server, trouble):
        trouble.fits, trouble.spared_width = 2, 32  # the large ones run out of memory now and then
        load(server, 20)
        before = resident_bytes()
        statuses = load(server, 60)
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
