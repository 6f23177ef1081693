"""What is still on its way when the server is asked to end: answers, and requests."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagegen.contract import ExitCode
from imagegen.engines.settings import SyntheticSettings
from imagegen.engines.synthetic.rates import SyntheticRates
from imagegen.server import ports
from imagegen.server.settings import Limits
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, Running, running, settings_for

PICTURES = 10
BODY = json.dumps({"prompt": "a kite", "n": PICTURES, "size": "1024x1024"}).encode()
"""Asks for noise, more than the kernel holds for a client that does not read."""

REQUEST = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: kites\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@pytest.fixture
def no_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave clients nothing but the time to drain."""
    monkeypatch.setattr(ports, "_CLOSING_SECONDS", 0)


@contextmanager
def stopped_while_read(drain_seconds: float) -> Iterator[tuple[Running, socket.socket]]:
    """Stop a server while its answer is on the way."""
    settings = settings_for(
        Path("/"),
        engine=SyntheticSettings(SyntheticRates(instability_rate=1)),
        limits=Limits(
            max_steps=2,
            max_batch_size=PICTURES,
            max_images_per_request=PICTURES,
            max_pixels=1 << 20,
        ),
        drain_seconds=drain_seconds,
    )
    with running(settings) as server, socket.socket() as line:
        line.settimeout(PATIENCE_SECONDS)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.connect(("127.0.0.1", settings.port))
        line.sendall(REQUEST)
        line.recv(1, socket.MSG_PEEK)
        server.server.stop()
        yield server, line


@pytest.mark.usefixtures("no_last_moment")
def test_a_drain_waits_until_answers_are_read() -> None:
    with stopped_while_read(PATIENCE_SECONDS) as (server, line):
        server.thread.join(0.5)  # a client that is busy with something else
        head, _, body = b"".join(iter(lambda: line.recv(1 << 20), b"")).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200")
        assert len(json.loads(body)["data"]) == PICTURES
    assert server.outcome == [ExitCode.DRAINED]


@pytest.mark.usefixtures("no_last_moment")
def test_a_drain_tells_when_an_answer_was_not_read_in_time() -> None:
    with stopped_while_read(0.2) as (server, _):
        server.thread.join(PATIENCE_SECONDS)
    assert server.outcome == [ExitCode.DRAIN_DEADLINE]


@pytest.mark.parametrize("drain_seconds", [2.0, PATIENCE_SECONDS])
def test_a_request_that_has_not_arrived_is_refused_and_does_not_hold_up_the_end(
    drain_seconds: float,
) -> None:
    settings = settings_for(Path("/"), engine=SyntheticSettings(), drain_seconds=drain_seconds)
    with running(settings) as server, socket.socket() as line:
        line.settimeout(PATIENCE_SECONDS)
        line.connect(("127.0.0.1", settings.port))
        line.sendall(REQUEST[:-1])
        while not server.server.state.open_requests:
            assert server.thread.is_alive()
        server.server.stop()
        head, _, body = b"".join(iter(lambda: line.recv(1 << 16), b"")).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 503")
        assert json.loads(body)["error"]["code"] == "draining"
    assert server.outcome == [ExitCode.DRAINED]
