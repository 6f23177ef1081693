"""The adapter against servers that answer badly, slowly, partly or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from modelrollout.errors import Transient
from modelrollout.evidence.prometheus import PrometheusMetrics
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES
from modelrollout.evidence.session import LARGEST_BODY, Failure
from modelrollout.settings import PrometheusSettings
from tests.unit.evidence.answering import (
    Answer,
    answering,
    body,
    document,
    like_prometheus,
    row,
    vector,
)

QUERIES = len(SERVER_FAMILIES) + len(PROBE_FAMILIES)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def metrics(url: str, clock: Clock | None = None, **settings: Any) -> PrometheusMetrics:
    given = {"url": url, "scrape_interval_seconds": 2, "timeout_seconds": 10, **settings}
    return PrometheusMetrics(PrometheusSettings(**given), clock or Clock())


async def failure(answer: Answer, **settings: Any) -> Transient:
    """Return what is raised when a server answers so."""
    with answering(answer) as server, pytest.raises(Transient) as caught:
        await metrics(server.url, **settings).snapshot()
    return caught.value


# -- good answers ----------------------------------------------------------------------------------
async def test_no_series_are_a_snapshot_without_pods() -> None:
    with answering(document(vector([]))) as server:
        snapshot = await metrics(server.url).snapshot()
    assert (snapshot.servers, snapshot.probes, snapshot.unusable) == ({}, {}, {})


async def test_the_number_of_queries_grows_with_families_not_with_pods() -> None:
    for pods in (1, 300):
        with answering(like_prometheus(pods)) as server:
            snapshot = await metrics(server.url).snapshot()
        assert len(snapshot.servers) == pods
        assert len(server.questions) == QUERIES


async def test_all_queries_are_about_one_settled_moment() -> None:
    with answering(like_prometheus(1)) as server:
        snapshot = await metrics(server.url + "/").snapshot()
    assert snapshot.time == NOON - timedelta(seconds=4)
    assert {question.path for question in server.questions} == {"/api/v1/query"}
    for question in server.questions:
        assert float(question.query["time"]) == snapshot.time.timestamp()
        assert question.query["lookback_delta"] == "8000ms"


async def test_a_thousand_rollouts_share_one_round() -> None:
    clock = Clock()
    with answering(like_prometheus(2)) as server:
        source = metrics(server.url, clock)
        snapshots = await asyncio.gather(*(source.snapshot() for _ in range(1000)))
        assert len(server.questions) == QUERIES
        assert all(snapshot is snapshots[0] for snapshot in snapshots)
        # When half a scrape interval has gone by
        clock.pass_seconds(1)
        assert await source.snapshot() is not snapshots[0]
        assert len(server.questions) == 2 * QUERIES


async def test_a_rollout_that_is_cancelled_takes_nothing_from_the_others() -> None:
    with answering(like_prometheus(1)) as server:
        source = metrics(server.url)
        first = asyncio.create_task(source.snapshot())
        second = asyncio.create_task(source.snapshot())
        await asyncio.sleep(0)
        first.cancel()
        assert len((await second).servers) == 1
        assert first.cancelled()


async def test_the_token_is_read_anew_for_each_round(tmp_path: Path) -> None:
    token, clock = tmp_path / "token", Clock()
    with answering(like_prometheus(1)) as server:
        source = metrics(server.url, clock, bearer_token_file=token)
        for word in ("first", "second"):
            token.write_text(word + "\n")
            await source.snapshot()
            assert server.questions[-1].headers["Authorization"] == f"Bearer {word}"
            clock.pass_seconds(5)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with answering(like_prometheus(1)) as server:
        assert len((await metrics(server.url).snapshot()).servers) == 1


# -- bad answers -----------------------------------------------------------------------------------
QUERY_TIMEOUT = {"status": "error", "errorType": "timeout", "error": "query timed out"}
BAD_QUERY = {"status": "error", "errorType": "bad_data", "error": "parse error"}
TOO_LONG = b" " * (LARGEST_BODY + 1)


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (document({}, status=503), Failure.UNAVAILABLE, "HTTP 503"),
        (document(QUERY_TIMEOUT, status=503), Failure.TIMEOUT, "query timed out"),
        (document(BAD_QUERY, status=400), Failure.REFUSED, "parse error"),
        (body(b"who are you?", status=401), Failure.REFUSED, "who are you?"),
        (
            body(b"", status=302, Location="http://127.0.0.1:9/elsewhere"),
            Failure.BAD_ANSWER,
            "`prometheus.url`",
        ),
        (body(b"<html>welcome</html>", kind="text/html"), Failure.BAD_ANSWER, "`prometheus.url`"),
        (document({"status": "success"}), Failure.BAD_ANSWER, "not as Prometheus"),
        (document([1, 2]), Failure.BAD_ANSWER, "not as Prometheus"),
        (document(vector([1772366400.0, "1"])), Failure.BAD_ANSWER, "not as Prometheus"),
        (document(vector([{"metric": {}}])), Failure.BAD_ANSWER, "not as Prometheus"),
        (document(vector([row("many", pod="a")])), Failure.BAD_ANSWER, "not as Prometheus"),
        (
            document(vector([], warnings=["store 2 did not answer"])),
            Failure.PARTIAL,
            "store 2 did not answer",
        ),
        (body(TOO_LONG), Failure.BAD_ANSWER, "longer than"),
        (
            body(gzip.compress(TOO_LONG, 1), Content_Encoding="gzip"),
            Failure.BAD_ANSWER,
            "longer than",
        ),
        (body(b"[" * 100_000), Failure.BAD_ANSWER, "not as Prometheus"),
        (document(vector([{"metric": "a", "value": [1, "1"]}])), Failure.BAD_ANSWER, "not as"),
        (body(json.dumps(vector([])).encode()[:-9]), Failure.BAD_ANSWER, "not as Prometheus"),
    ],
    ids=[
        *("503", "query-timeout", "bad-query", "401", "redirect", "html", "no-data", "list"),
        *(
            "scalar",
            "no-value",
            "no-number",
            "warnings",
            "long",
            "packed",
            "deep",
            "no-labels",
            "cut-off",
        ),
    ],
)
async def test_an_answer_that_cannot_be_relied_on(answer: Answer, reason: str, words: str) -> None:
    error = await failure(answer)
    assert error.reason == reason
    assert words in error.message


async def test_a_redirect_is_not_followed_nor_given_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with answering(like_prometheus(1)) as elsewhere:
        away = body(b"", status=307, Location=elsewhere.url + "/api/v1/query")
        await failure(away, bearer_token_file=tmp_path / "token")
    assert elsewhere.questions == []


async def test_infos_are_no_warnings() -> None:
    with answering(document(vector([], infos=["metric might not be a counter"]))) as server:
        assert (await metrics(server.url).snapshot()).servers == {}


def hang(handler: BaseHTTPRequestHandler) -> None:
    handler.ending.wait()  # type: ignore[attr-defined]


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.ending.wait(0.02):  # type: ignore[attr-defined]
        handler.wfile.write(b" ")


@pytest.mark.parametrize("answer", [hang, drip])
async def test_a_server_that_does_not_finish_is_given_up(answer: Answer) -> None:
    began = time.monotonic()
    error = await failure(answer, timeout_seconds=0.3)
    assert error.reason == Failure.TIMEOUT
    assert time.monotonic() - began < 5


async def test_the_time_limit_is_for_the_whole_round() -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.ending.wait(0.2)  # type: ignore[attr-defined]
        document(vector([]))(handler)

    assert (await failure(slow, timeout_seconds=0.5)).reason == Failure.TIMEOUT


async def test_a_connection_that_breaks_is_unreachable() -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    assert (await failure(hang_up)).reason == Failure.UNREACHABLE


async def test_nobody_there_is_said_in_words_that_do_not_change() -> None:
    with answering(hang) as server:
        url = server.url.replace("//", "//user:password@")
    clock, messages = Clock(), set()
    source = metrics(url, clock)
    for _ in range(2):
        with pytest.raises(Transient) as caught:
            await source.snapshot()
        assert caught.value.reason == Failure.UNREACHABLE
        messages.add(caught.value.message)
        clock.pass_seconds(5)
    (message,) = messages
    assert "Connection refused" in message
    assert "password" not in message


async def test_a_failure_is_shared_for_a_while_and_then_asked_again() -> None:
    clock = Clock()
    with answering(document({}, status=503)) as server:
        source = metrics(server.url, clock)
        outcomes = await asyncio.gather(
            *(source.snapshot() for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(outcome, Transient) for outcome in outcomes)
        assert len(server.questions) == 1
        # When Prometheus is well again
        server.answer = like_prometheus(1)
        clock.pass_seconds(1)
        assert len((await source.snapshot()).servers) == 1


# -- credentials -----------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [None, "", "two words", "line\nbreak", "schlüssel"])
async def test_a_token_that_cannot_be_used_is_said_but_not_told(
    tmp_path: Path, content: str | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    with answering(like_prometheus(1)) as server, pytest.raises(Transient) as caught:
        await metrics(server.url, bearer_token_file=token).snapshot()
    assert caught.value.reason == Failure.CREDENTIALS
    assert "`prometheus.bearerTokenFile`" in caught.value.message
    assert not content or content not in caught.value.message
    assert server.questions == []


async def test_certificates_that_are_not_there_are_said() -> None:
    with pytest.raises(Transient, match=r"`prometheus\.caFile`") as caught:
        await metrics("https://127.0.0.1:9", ca_file=Path("/nowhere/ca.crt")).snapshot()
    assert caught.value.reason == Failure.CREDENTIALS
