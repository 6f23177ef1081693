"""Requests that nobody means well with: bodies, headers and bytes that are not HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from imagegen import contract
from imagegen.engines.settings import SyntheticSettings
from imagegen.errors import RequestRefusedError
from imagegen.server import body
from imagegen.server.fields import Fields
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, Running, running, settings_for

GENERATIONS = "/v1/images/generations"
ERROR_FIELDS = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def target() -> Iterator[Running]:
    with running(settings_for(Path("/"), engine=SyntheticSettings())) as one:
        yield one
        assert one.outcome == []  # it has not ended meanwhile


def assert_in_form(told: Any) -> dict[str, Any]:
    """Check for the form of OpenAI's errors; give the error."""
    assert set(told) == {"error"}
    error: dict[str, Any] = told["error"]
    assert set(error) == ERROR_FIELDS
    assert error["message"]
    assert error["code"]
    assert "Traceback" not in error["message"]
    return error


@pytest.mark.parametrize("method", ["DELETE", "HEAD", "OPTIONS", "PATCH", "PUT", "TRACE", "FOO"])
def test_other_methods_are_not_allowed(target: Running, method: str) -> None:
    answer = target.http.request(method, GENERATIONS)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert method == "HEAD" or assert_in_form(answer.json())["code"] == "method_not_allowed"


# -- bodies ----------------------------------------------------------------------------------------
def with_field(name: str, value: str) -> bytes:
    return f'{{"prompt": "a kite", "{name}": {value}}}'.encode()


DIGITS = "9" * 5000
HOSTILE_VALUES = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", DIGITS, "-" + DIGITS, "1e-999999999"),
    *("-1", "0.5", "true", '"1"', "[]", "{}", '[{"a": [1, {"b": 2}]}]', '"\\ud800"', '"\\u0000"'),
    *("9007199254740993.5", "18446744073709551616", '"' + "x" * 60000 + '"', "[" * 60000),
]
"""Wrong for all numbers and choices: none is a value of theirs."""


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: value[:20])
@pytest.mark.parametrize(
    "name",
    ["n", "num_inference_steps", "size", "model", "scheduler", "response_format", "stream"],
)
def test_a_hostile_value_is_a_bad_request(target: Running, name: str, value: str) -> None:
    answer = target.post(with_field(name, value))

    assert answer.status_code == 400
    assert_in_form(answer.json())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "invalid_json"),
        (b"\x00", "invalid_json"),
        (b"null", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"prompt": "a", "guidance_scale": NaN}', "invalid_json"),
        (b'{"prompt": "a", "guidance_scale": 1e999}', "invalid_value"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'"prompt"', "invalid_json"),
        (b"[" * 60000 + b"]" * 5, "invalid_json"),
        (b'{"a":' * 10000 + b"1" + b"}" * 10000, "invalid_json"),
        (b'{"prompt": "a", "prompt": "b"}', "invalid_json"),
        (b'{"prompt": "a", "n": 1, "n": 2}', "invalid_json"),
        (b'{"prompt": "a"} {"prompt": "b"}', "invalid_json"),
        (b'{"prompt": "\xff\xfe"}', "invalid_json"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid_json"),
        (b'\xef\xbb\xbf{"prompt": "a"}', "invalid_json"),
        ('{"prompt": "a"}'.encode("utf-16"), "invalid_json"),
        (b'{"prompt": "\\ud800"}', "invalid_value"),
        (b'{"prompt": " \\n\\t"}', "invalid_value"),
        (b'{"prompt": ["a", "b"]}', "invalid_value"),
        (b'{"prompt": {"text": "a"}}', "invalid_value"),
        (b'{"prompt": "a", "__class__": 1}', "unknown_parameter"),
        (b'{"prompt": "a", "\\ud800\\u0000\\r\\n": 1}', "unknown_parameter"),
        (b'{"Prompt": "a"}', "unknown_parameter"),
        (b'{"prompt": "' + b"a" * 1_000_000 + b'"}', "body_too_large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_no_request_is_refused(target: Running, sent: bytes, code: str) -> None:
    answer = target.post(sent)

    assert answer.status_code == (413 if code == "body_too_large" else 400)
    assert assert_in_form(answer.json())["code"] == code


def test_a_name_that_is_there_twice_is_found_at_once_among_very_many() -> None:
    names = [f'"{number:x}": 1' for number in range(150_000)]
    sent = f"{{{', '.join(names)}, {names[-1]}}}".encode()
    told: list[str] = []

    def check() -> None:
        with pytest.raises(RequestRefusedError) as caught:
            Fields(sent, ("prompt",))
        told.append(caught.value.message)

    checking = Thread(target=check, daemon=True)
    checking.start()
    checking.join(PATIENCE_SECONDS)  # comparing all with all takes minutes
    assert told == ["field '249ef' is there twice"]


@pytest.mark.parametrize(
    "prompt",
    [
        "\x00",
        "\u202e\u0000\x1b[31m",
        "👩‍👩‍👧" * 250,
        "%s%n{0}{{}}$(id)`id`",
        "<script>",
        "\ufeff",
        "﷽" * 2000,
    ],
)
def test_a_strange_prompt_is_a_prompt(target: Running, prompt: str) -> None:
    assert target.generate(prompt=prompt).status_code == 200


# -- headers ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json-patch+json"},
        {"Content-Type": "\u00e9"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br, identity"},
    ],
    ids=str,
)
def test_another_kind_of_body_is_refused(target: Running, headers: dict[str, str]) -> None:
    told = {"Content-Type": "application/json", **headers}
    sent = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
    before = target.value(contract.REQUESTS_TOTAL, outcome="invalid", code="415")
    answer = target.http.post(GENERATIONS, content=b'{"prompt": "a"}', headers=sent)

    assert answer.status_code == 415
    assert target.value(contract.REQUESTS_TOTAL, outcome="invalid", code="415") == before + 1
    assert assert_in_form(answer.json())["code"] == "unsupported_media_type"


@pytest.mark.parametrize("name", [contract.BATCH_HEADER, contract.TIMEOUT_HEADER])
@pytest.mark.parametrize("value", ["1_0", "9" * 400, "\u00b2", "1, 2", "0x1"])
def test_a_hostile_header_is_a_bad_request(target: Running, name: str, value: str) -> None:
    sent = [(name.encode(), value.encode("latin-1")), (b"Content-Type", b"application/json")]
    answer = target.http.post(GENERATIONS, content=b'{"prompt": "a"}', headers=sent)

    assert answer.status_code == 400
    assert assert_in_form(answer.json())["param"] == name


# -- below HTTP's good manners ---------------------------------------------------------------------
@pytest.fixture
def talk(target: Running) -> Iterator[Callable[[bytes], bytes]]:
    """Send bytes as they are, and give what comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", target.settings.port), PATIENCE_SECONDS) as line:

        def send(raw: bytes) -> bytes:
            line.sendall(raw)
            heard = b""
            while part := line.recv(65536):
                heard += part
            return heard

        yield send


BEGIN = b"POST /v1/images/generations HTTP/1.1\r\nHost: kites\r\nContent-Type: application/json\r\n"
HANG_UP = b"Connection: close\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        BEGIN + b"Content-Length: -1\r\n\r\n{}",
        BEGIN + b"Content-Length: 99999999999999999999999999\r\n\r\n{}",
        BEGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        BEGIN + b"Content-Length: two\r\n\r\n{}",
        BEGIN + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
        BEGIN + b"X\x00Y: 1\r\n\r\n",
        BEGIN + b"no colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"GET\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[-40:]),
)
def test_what_is_not_http_is_no_request(
    target: Running, talk: Callable[[bytes], bytes], raw: bytes
) -> None:
    head, _, told = talk(raw).partition(b"\r\n\r\n")

    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert b"content-type: application/json" in head.lower()
    assert assert_in_form(json.loads(told))["code"] in {"invalid_http", "body_too_large"}
    assert target.generate().status_code == 200


def test_a_path_in_no_encoding_is_not_found(talk: Callable[[bytes], bytes]) -> None:
    heard = talk(b"GET /v1/%ff%00/..%2f..%2fetc HTTP/1.1\r\nHost: kites\r\n" + HANG_UP + b"\r\n")

    assert heard.startswith(b"HTTP/1.1 404")
    assert_in_form(json.loads(heard.partition(b"\r\n\r\n")[2]))


def test_a_body_that_trickles_is_given_up_and_keeps_nobody_waiting(
    target: Running, talk: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "READ_SECONDS", 0.2)
    monkeypatch.setattr(body, "_REST_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", target.settings.port)) as stuck:
        stuck.sendall(BEGIN)  # its headers never end
        heard = talk(BEGIN + b"Content-Length: 50\r\n\r\n{")

        assert heard.startswith(b"HTTP/1.1 408")
        told = json.loads(heard.partition(b"\r\n\r\n")[2])
        assert assert_in_form(told)["code"] == "body_too_slow"
        assert target.generate().status_code == 200
    assert target.server.state.open_requests == 0
