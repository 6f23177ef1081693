"""What the API says of itself, tried out by a client that sends everything it describes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from imagegen import contract
from imagegen.contract import TIMEOUT_HEADER
from imagegen.errors import RequestRefusedError
from imagegen.server.fields import FIXED
from imagegen.server.openapi import document
from imagegen.server.ports import _listen
from imagegen.server.settings import Limits
from imagegen.server.validation import EngineRules, RequestRules
from tests.unit.imagegen.conftest import Running, free_port, running, settings_for

Fields = dict[str, Any]


@pytest.fixture(scope="module")
def small(model_folder: Callable[[str], Path]) -> Iterator[Running]:
    """A server that allows only what is made in no time."""
    limits = Limits(max_steps=2, max_batch_size=2, max_images_per_request=2, max_pixels=32 * 48)
    with running(settings_for(model_folder("sd"), limits=limits, queue_capacity=64)) as one:
        yield one


def schema_of(rules: RequestRules, settings_: Any = None) -> Fields:
    described = document(settings_, rules)
    return {**described["components"]["schemas"]["Request"], "components": described["components"]}


# -- the description -------------------------------------------------------------------------------
def test_the_description_is_valid_before_and_after_the_model_is_loaded(small: Running) -> None:
    loaded = small.http.get("/openapi.json").json()
    for described in (loaded, document(small.settings, None)):
        schemathesis.openapi.from_dict(described).validate()
        for schema in described["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)


@pytest.fixture(scope="module")
def described(small: Running) -> Any:
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


def beyond(answer: schemathesis.Response) -> list[Any]:
    """Give the checks that do not hold of an answer to what no schema can describe."""
    error = answer.json()["error"] if answer.status_code == 400 else {"param": "", "code": ""}
    beyond_schemas = error["param"] == "size" or error["code"] == "too_many_tokens"
    return [positive_data_acceptance] if beyond_schemas else []


@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_the_answer_is_one_that_is_described(
    described: Any, mode: GenerationMode
) -> None:
    operations = [operation.ok() for operation in described.get_all_operations()]
    (post,) = (
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        if operation.method == "post"
    )
    gets = [
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        if operation.method == "get" and mode is GenerationMode.POSITIVE
    ]
    # Half of them ask for pictures, of which there is the most to get wrong.
    cases: st.SearchStrategy[Any] = st.booleans().flatmap(
        lambda get: st.one_of(gets) if get and gets else post
    )

    @given(case=cases)
    @settings(max_examples=200, suppress_health_check=list(HealthCheck), derandomize=True)
    def try_it(case: schemathesis.Case[Any]) -> None:
        answer = case.call()
        code = answer.json()["error"]["code"] if answer.status_code >= 400 else None
        if answer.status_code >= 500:
            assert code == "deadline_exceeded", answer.text
            assert TIMEOUT_HEADER in case.headers
        # No schema can say which area a picture or how many tokens a prompt may have, and 504 is
        # what such a deadline gets.
        case.validate_response(answer, excluded_checks=[not_a_server_error, *beyond(answer)])

    try_it()


LIMITS = Limits(max_steps=40, max_batch_size=4, max_images_per_request=6, max_pixels=96 * 96)
ENGINES = [
    EngineRules(8, 512, takes_negative_prompt=True, schedulers=("DDIM", "PNDM")),
    EngineRules(16, 64, takes_negative_prompt=False, max_steps=8, guidance_range=(0.0, 2.0)),
    EngineRules(8, 512, takes_negative_prompt=True, guidance_range=(0.0, 1.0)),
    EngineRules(8, 512, takes_negative_prompt=True, negative_prompt_needs_guidance=False),
    EngineRules(1, 512, takes_negative_prompt=False, unused_fields=("seed", "guidance_scale")),
]


def values() -> st.SearchStrategy[Any]:
    """Values that some field may have, and values near them."""
    fixed = [value for each in FIXED.values() for value in each.allowed]
    known = ["DDIM", "PNDM", "kites", "auto", "32x32", "32x64", "48x8", "", " ", *fixed]
    return st.one_of(
        st.sampled_from([*known, None, True, False, 0, 1, 6, 7, 8, 40, 41, 100, 2**32]),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
        st.lists(st.integers(), max_size=2),
    )


def refused(rules: RequestRules, body: Fields) -> str | None:
    """Check a body; give the name of the field that it is refused for."""
    try:
        rules.check(json.dumps(body).encode())
    except RequestRefusedError as refusal:
        return refusal.param or "all of it"
    return None


@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data(), guidance=st.sampled_from([0.0, 1.0, 5.0]))
@settings(max_examples=150)
def test_the_description_and_the_rules_agree_on_every_body(
    small: Running, engine: EngineRules, data: st.DataObject, guidance: float
) -> None:
    defaults = replace(small.settings.defaults, guidance_scale=guidance)
    rules = RequestRules("kites", defaults, LIMITS, engine)
    names = st.sampled_from([*rules.fields, "batch_size"])
    fields = data.draw(st.dictionaries(names, values(), max_size=3))
    if data.draw(st.booleans()):
        fields["negative_prompt"] = "grey"
    body = {"prompt": "a kite", **fields} if data.draw(st.booleans()) else fields

    schema = schema_of(rules, small.settings)
    described_as_valid = jsonschema.Draft202012Validator(schema).is_valid(body)
    assert described_as_valid or refused(rules, body)
    if described_as_valid:
        # What no schema can say: the area and the shape of a picture.
        assert refused(rules, body) in {None, "size"}


# -- statuses --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
        ("GET", "/v2/models/other/ready", 404, "not_found"),
        ("GET", "/v1/images/generations", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", contract.READY_PATH, 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_told_in_the_form_of_errors(
    small: Running, method: str, path: str, status: int, code: str
) -> None:
    answer = small.http.request(method, path)

    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(("headers", "status"), [({}, 200), ({"Origin": "http://elsewhere"}, 415)])
def test_a_body_without_a_type_is_taken_from_tools_and_not_from_pages(
    small: Running, headers: dict[str, str], status: int
) -> None:
    request = httpx.Request(
        "POST",
        str(small.http.base_url).rstrip("/") + "/v1/images/generations",
        content=b'{"prompt": "a kite"}',
        headers=headers,
    )
    assert "content-type" not in request.headers
    assert small.http.send(request).status_code == status


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_metrics_are_on_both_ports_in_the_format_asked_for(small: Running, kind: str) -> None:
    elsewhere = f"http://127.0.0.1:{small.settings.metrics_port}"
    told = [
        small.http.get(where + contract.METRICS_PATH, headers={"Accept": kind})
        for where in ("", elsewhere)
    ]

    def names(text: str) -> set[str]:
        return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    assert names(told[0].text) == names(told[1].text)
    assert len(names(told[0].text)) > 20
    assert all(answer.headers["Content-Type"].startswith(kind) for answer in told)


async def test_the_end_of_an_answer_does_not_wait_until_its_beginning_is_confirmed() -> None:
    undelayed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        undelayed.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with _listen("--port", "127.0.0.1", free_port()) as listener:
        async with await asyncio.start_server(accepted, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await undelayed != 0
            writer.close()
