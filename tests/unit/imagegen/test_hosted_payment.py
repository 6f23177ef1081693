"""What is on the bill of a hosted model, and how long it asks to wait."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from imagegen.contract import Outcome
from imagegen.engines.base import Batch, GenerationSettings
from imagegen.engines.hosted import upstream
from imagegen.errors import GenerationCancelledError
from tests.unit.imagegen.conftest import PATIENCE_SECONDS
from tests.unit.imagegen.engines import never
from tests.unit.imagegen.hosting import PAID_SECONDS, SIDE, engine, error, good, refused
from tests.unit.imagegen.scripted import scripted

TWO = Batch(("a fox", "a hen"), (1, 2), GenerationSettings(SIDE, SIDE, 1, 0.0))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """What takes connections and says nothing, so that none is ever encrypted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address(listener: socket.socket) -> str:
    return f"https://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_call_that_is_given_up_while_connecting_costs_nothing(silent: socket.socket) -> None:
    def connects() -> bool:
        return bool(select.select([silent], [], [], 0)[0])

    with engine(address(silent)) as one:
        with pytest.raises(GenerationCancelledError):
            one.generate(TWO, should_stop=connects)
        assert one.busy_clock() == 0


def test_a_call_whose_time_is_up_while_connecting_costs_nothing(silent: socket.socket) -> None:
    with engine(address(silent), timeout_seconds=0.1) as one:
        refusal = refused(one)
        assert one.busy_clock() == 0
    assert (refusal.outcome, refusal.code) == (Outcome.TIMEOUT, "upstream_timeout")


def test_a_call_that_waits_for_a_connection_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_POOL", httpx.Limits(max_connections=1))
    go_on = threading.Event()
    with (
        scripted(good(before=lambda: go_on.wait(PATIENCE_SECONDS))) as api,
        engine(api.url) as one,
    ):
        with pytest.raises(GenerationCancelledError):
            one.generate(TWO, should_stop=lambda: bool(api.seen))
        go_on.set()
        assert one.busy_clock() == pytest.approx(PAID_SECONDS), "only one of two was sent"


def test_an_api_gets_a_body_whose_length_it_is_told() -> None:
    with scripted(good()) as api, engine(api.url) as one:
        one.generate(TWO, should_stop=never)
    for seen in api.seen:
        assert seen.headers["Content-Type"] == "application/json"
        assert int(seen.headers["Content-Length"]) > 0
        assert "Transfer-Encoding" not in seen.headers


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
def test_an_api_may_say_until_when_it_is_busy(status: int) -> None:
    with scripted(error(status, Retry_After=in_seconds(3600))) as api, engine(api.url) as one:
        refusal = refused(one)
        assert one.busy_clock() == 0
    assert refusal.code == "upstream_busy"
    assert refusal.retry_after is not None
    assert 3600 - PATIENCE_SECONDS < refusal.retry_after <= 3600
    assert len(api.seen) == 1, "it asks for longer than anybody waits"


@pytest.mark.parametrize(
    ("until", "calls", "retry_after"),
    [
        (in_seconds(-3600), 3, 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1, 999_999),
        ("Fri, 31 Dec 9999 23:59:59 -0000", 1, 999_999),
        ("Fri, 99 Foo 2026 00:00:00 GMT", 3, 1),
    ],
)
def test_a_strange_time_to_come_again_does_no_harm(
    until: str, calls: int, retry_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_FIRST_WAIT_SECONDS", 0.01)
    with scripted(error(429, Retry_After=until)) as api, engine(api.url) as one:
        assert refused(one).retry_after == retry_after
    assert len(api.seen) == calls
