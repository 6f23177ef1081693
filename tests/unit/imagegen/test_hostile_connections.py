"""Connections that take a server's time or memory: heads and bodies that never end."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from imagegen import contract
from imagegen.engines.settings import SyntheticSettings
from imagegen.server import body, connections
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, Running, running, settings_for

BEGIN = b"POST /v1/images/generations HTTP/1.1\r\nHost: kites\r\nContent-Type: application/json\r\n"
MEBIBYTE = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
KERNEL_MEBIBYTES = 24
"""What the kernel holds between two sockets at most, and then some."""


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running(settings_for(Path("/"), engine=SyntheticSettings())) as one:
        yield one
        assert one.outcome == []  # it has not ended meanwhile


@pytest.fixture
def connect(target: Running) -> Iterator[Callable[[], socket.socket]]:
    """Open connections that are closed after the test."""
    with ExitStack() as lines:

        def open_one() -> socket.socket:
            address = ("127.0.0.1", target.settings.port)
            return lines.enter_context(socket.create_connection(address, PATIENCE_SECONDS))

        yield open_one


def rest_of(line: socket.socket) -> bytes:
    """Give what comes until the server hangs up."""
    heard = b""
    try:
        while part := line.recv(65536):
            heard += part
    except ConnectionResetError:
        pass
    return heard


def sent_until_cut_off(line: socket.socket, parts: Iterable[bytes]) -> int:
    """Send parts until the server hangs up; give their number."""
    for count, part in enumerate(parts):
        try:
            line.sendall(part)
        except OSError:
            return count
    raise AssertionError("the server took all of it")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- bodies that are not wanted --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (BEGIN, b"413"),
        (BEGIN.replace(b"application/json", b"text/plain"), b"415"),
        (BEGIN.replace(b"/generations", b"/nothing"), b"404"),
        (BEGIN.replace(b"POST", b"PUT"), b"405"),
        (BEGIN.replace(b"POST /v1/images/generations", b"GET /v1/models"), b"200"),
    ],
    ids=lambda value: value[-40:].decode(),
)
def test_an_endless_body_is_cut_off_soon_after_the_answer(
    connect: Callable[[], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    status: bytes,
) -> None:
    monkeypatch.setattr(body, "_REST_SECONDS", PATIENCE_SECONDS)
    line = connect()
    line.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")

    assert sent_until_cut_off(line, itertools.repeat(MEBIBYTE, 1000)) < KERNEL_MEBIBYTES
    heard = rest_of(line)
    assert heard.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in heard.lower()


def test_an_endless_body_is_cut_off_on_the_port_of_metrics_too(
    target: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_REST_SECONDS", PATIENCE_SECONDS)
    address = ("127.0.0.1", target.settings.metrics_port)
    with socket.create_connection(address, PATIENCE_SECONDS) as line:
        line.sendall(b"GET /metrics HTTP/1.1\r\nHost: kites\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = sent_until_cut_off(line, itertools.repeat(MEBIBYTE, 1000))

    assert sent < KERNEL_MEBIBYTES


def test_a_body_that_trickles_on_after_the_answer_is_cut_off(
    target: Running, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_REST_SECONDS", 0.2)
    line = connect()
    line.sendall(BEGIN + b"Content-Length: 1000000000\r\n\r\n")

    heard = rest_of(line)  # returns, although not a byte of the body has been sent
    assert heard.startswith(b"HTTP/1.1 413")
    assert target.server.state.open_requests == 0


def test_a_client_that_first_sends_all_hears_why_it_was_refused(target: Running) -> None:
    too_large = b" " * (target.settings.limits.max_body_bytes + 200_000)
    answers = [target.post(too_large) for _ in range(20)]

    assert [answer.status_code for answer in answers] == [413] * 20


def test_a_connection_whose_body_was_read_is_kept(connect: Callable[[], socket.socket]) -> None:
    line = connect()
    for sent in (b'{"prompt": "a kite"}', b'{"prompt": ""}', b"no json"):
        line.sendall(BEGIN + b"Content-Length: %d\r\n\r\n" % len(sent) + sent)
        answer = one_answer(line)
        assert b"connection: close" not in answer.lower()


def one_answer(line: socket.socket) -> bytes:
    """Read one answer with a declared length; give its head."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += line.recv(65536)
    head, _, content = heard.partition(b"\r\n\r\n")
    (length,) = (
        int(row.partition(b":")[2])
        for row in head.split(b"\r\n")
        if row.lower().startswith(b"content-length:")
    )
    while len(content) < length:
        content += line.recv(65536)
    return head


# -- heads that never end --------------------------------------------------------------------------
@pytest.mark.parametrize("port", ["port", "metrics_port"])
def test_a_connection_that_says_nothing_is_closed(
    target: Running, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.1)
    address = ("127.0.0.1", getattr(target.settings, port))
    with socket.create_connection(address, PATIENCE_SECONDS) as line:
        assert rest_of(line) == b""


def test_a_connection_may_be_idle_for_longer_than_a_head_may_take(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.05)
    line = connect()
    for _ in range(2):
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.recv(1)
        line.settimeout(PATIENCE_SECONDS)
        line.sendall(b"GET /v1/models HTTP/1.1\r\nHost: kites\r\n\r\n")
        assert one_answer(line).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("answered", [False, True])
def test_a_head_that_trickles_is_cut_off(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.3)
    line = connect()
    if answered:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nHost: kites\r\n\r\n")
        one_answer(line)
    line.settimeout(0.02)

    def trickle() -> Iterator[bytes]:
        yield BEGIN
        for row in itertools.repeat(b"X-More: 1\r\n", 500):
            with suppress(TimeoutError):
                assert line.recv(1) == b"", "an answer to half a head"
            yield row

    sent_until_cut_off(line, trickle())


def test_a_head_that_is_too_long_is_refused(connect: Callable[[], socket.socket]) -> None:
    line = connect()
    line.sendall(BEGIN)

    rows = itertools.repeat(b"X-More: " + b"1" * 8192 + b"\r\n", 10_000)
    assert sent_until_cut_off(line, rows) < KERNEL_MEBIBYTES << 7
    assert rest_of(line)[:12] in {b"", b"HTTP/1.1 400"}


def test_what_follows_a_head_has_a_time_limit_of_its_own(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    sent = b'{"prompt": "a kite"}'
    line = connect()
    line.sendall(BEGIN + b"Content-Length: %d\r\n\r\n" % len(sent))
    line.settimeout(0.3)
    with pytest.raises(TimeoutError):
        line.recv(1)
    line.settimeout(PATIENCE_SECONDS)
    line.sendall(sent)

    assert one_answer(line).startswith(b"HTTP/1.1 200")


def test_many_connections_without_a_request_do_not_keep_others_out(
    target: Running, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.BoundedProtocol, "most_connections", 20)
    lines = [connect() for _ in range(100)]
    for line in lines:
        line.sendall(b"GET ")

    with httpx.Client(base_url=target.url, timeout=PATIENCE_SECONDS) as http:
        assert http.get(contract.LIVE_PATH).status_code == 200
    assert [rest_of(line) for line in lines[:80]] == [b""] * 80
    lines[-1].sendall(b"/v1/models HTTP/1.1\r\nHost: kites\r\n\r\n")
    assert one_answer(lines[-1]).startswith(b"HTTP/1.1 200")


def test_many_bodies_that_never_end_do_not_keep_others_out(
    target: Running, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.BoundedProtocol, "most_connections", 20)
    lines = [connect() for _ in range(20)]
    for line in lines:
        line.sendall(BEGIN + b"Content-Length: 50\r\n\r\n{")
    wait_until(lambda: target.server.state.open_requests == 20)

    with ExitStack() as clients:
        for line in lines[:5]:
            http = clients.enter_context(
                httpx.Client(base_url=target.url, timeout=PATIENCE_SECONDS)
            )
            assert http.get(contract.LIVE_PATH).status_code == 200
            sent = http.post("/v1/images/generations", json={"prompt": "a kite"})
            assert sent.status_code == 200
            assert rest_of(line) == b"", "the one that has taken longest makes room"


# -- answers that nobody takes ---------------------------------------------------------------------
def open_sockets() -> int:
    """Count those of this process, which the server is a part of."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sum("socket:" in link for link in links)


def connections_of(target: Running) -> list[connections.BoundedProtocol]:
    """Give those of the server's port for requests."""
    found = (one for one in gc.get_objects() if isinstance(one, connections.BoundedProtocol))
    return [one for one in found if one.server == ("127.0.0.1", target.settings.port)]


ASK = b"GET /openapi.json HTTP/1.1\r\nHost: kites\r\n"
MANY = 1000
"""Answers of which the kernel holds not all, for a client that does not read."""


@pytest.fixture
def narrow(target: Running) -> Iterator[socket.socket]:
    """A connection with little room for what is sent to it."""
    with socket.socket() as line:
        line.settimeout(PATIENCE_SECONDS)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.connect(("127.0.0.1", target.settings.port))
        yield line


def test_answers_that_nobody_takes_are_thrown_away(
    narrow: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_ANSWER_SECONDS", 0.2)
    narrow.sendall(ASK + b"\r\n")
    one_answer(narrow)  # the server has its end of the connection now
    before = open_sockets()
    narrow.sendall((ASK + b"\r\n") * MANY)

    wait_until(lambda: open_sockets() < before)


def test_connections_with_answers_that_nobody_takes_are_bounded_and_leave_room_for_probes(
    target: Running, narrow: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.BoundedProtocol, "most_connections", 1)
    monkeypatch.setattr(connections, "_SPARE_CONNECTIONS", 2)
    narrow.sendall((ASK + b"\r\n") * MANY)
    wait_until(lambda: any(one.is_sending for one in connections_of(target)))
    busy = target.value(contract.REQUESTS_TOTAL, outcome="busy", code="503")

    with ExitStack() as lines:
        others = [
            lines.enter_context(socket.create_connection(("127.0.0.1", target.settings.port)))
            for _ in range(5)
        ]
        for path in (contract.LIVE_PATH, contract.READY_PATH, contract.METRICS_PATH):
            with httpx.Client(base_url=target.url, timeout=PATIENCE_SECONDS) as http:
                assert http.get(path).status_code == 200
        assert [rest_of(line) for line in others[:4]] == [b""] * 4

    with httpx.Client(base_url=target.url, timeout=PATIENCE_SECONDS) as http:
        for _ in range(2):
            refused = http.post("/v1/images/generations", json={"prompt": "a kite"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "too_many_connections"
            assert refused.headers["Retry-After"] == "1"
    assert target.value(contract.REQUESTS_TOTAL, outcome="busy", code="503") == busy + 2

    narrow.close()
    wait_until(lambda: not any(one.is_sending for one in connections_of(target)))
    with httpx.Client(base_url=target.url, timeout=PATIENCE_SECONDS) as http:
        sent = http.post("/v1/images/generations", json={"prompt": "a kite"})
        assert sent.status_code == 200


def test_answers_may_be_taken_slowly(
    narrow: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("IDLE_SECONDS", "_HEAD_SECONDS"):
        monkeypatch.setattr(connections, limit, 0.1)
    narrow.sendall((ASK + b"\r\n") * (MANY - 1) + ASK + b"Connection: close\r\n\r\n")
    time.sleep(0.3)  # a client that is busy with something else

    assert rest_of(narrow).count(b"HTTP/1.1 200") == MANY
