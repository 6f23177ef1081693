"""What a server in front of a hosted model takes, tells and pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from openai.types import ImagesResponse

from imagegen import contract
from imagegen.contract import BATCH_HEADER
from imagegen.engines.hosted.settings import FIELDS, HostedSettings
from tests.unit.imagegen.conftest import Running, running, settings_for
from tests.unit.imagegen.hosting import good
from tests.unit.imagegen.scripted import Scripted, scripted

CHOICES: dict[str, Any] = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.5}


@dataclass
class Front:
    """A server in front of an API, which has made the picture of the warm-up."""

    server: Running
    api: Scripted

    def bought(self) -> list[dict[str, Any]]:
        """Give the fields of all calls since the warm-up."""
        return [seen.fields for seen in self.api.seen[1:]]


@contextmanager
def front(*fields: str) -> Iterator[Front]:
    with scripted(good()) as api:
        hosted = HostedSettings(
            api.url, model="big-model", allowed_hosts=("127.0.0.1",), fields=fields
        )
        with running(settings_for(Path("/"), engine=hosted)) as server:
            yield Front(server, api)


@pytest.mark.parametrize(
    ("name", "value"), [*CHOICES.items(), ("scheduler", "DDIM"), ("negative_prompt", "grey")]
)
def test_a_field_that_the_api_does_not_get_is_refused(name: str, value: Any) -> None:
    with front("response_format") as one:
        answer = one.server.generate(**{name: value})
        described = one.server.http.get("/openapi.json").json()

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == name
        assert "leave it out" in answer.json()["error"]["message"]
        assert one.bought() == []
        assert one.server.generate(**{name: None}).status_code == 200
    schema = {"$ref": "#/components/schemas/Request", "components": described["components"]}
    assert not jsonschema.Draft202012Validator(schema).is_valid({"prompt": "a kite", name: value})


def test_what_the_api_decides_by_itself_is_not_told() -> None:
    with front() as one:
        answer = one.server.generate(n=2).json()
        steps = one.server.value(contract.DENOISE_STEPS_TOTAL)

        assert all(set(sent) == {"model", "prompt", "n", "size"} for sent in one.bought())
    for told in (answer, *answer["data"]):
        assert {told.get(name) for name in (*CHOICES, "steps", "scheduler")} == {None}
        assert told["size"] == "32x32"
    assert steps == 0


def test_a_field_that_the_api_gets_is_taken_and_told() -> None:
    with front(*FIELDS) as one:
        entry = one.server.generate(**CHOICES, negative_prompt="grey").json()["data"][0]
        (sent,) = one.bought()

    assert {name: sent[name] for name in CHOICES} == CHOICES
    assert sent["negative_prompt"] == "grey"
    assert (entry["seed"], entry["steps"], entry["guidance_scale"]) == tuple(CHOICES.values())


def test_the_client_of_openai_is_served_and_told_what_has_no_effect() -> None:
    with (
        front() as one,
        openai.OpenAI(base_url=f"{one.server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        raw = client.images.with_raw_response.generate(
            prompt="a fox",
            n=2,
            size="auto",
            quality="auto",
            response_format="b64_json",
            output_format="png",
            background="auto",
            moderation="auto",
            user="somebody",
        )
        answer = ImagesResponse.model_validate_json(raw.content, strict=True)
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(prompt="a fox", extra_body={"seed": 7})

    assert answer.data is not None
    assert len(answer.data) == 2
    assert caught.value.param == "seed"


@pytest.mark.parametrize("size", ["2", "4"])
def test_a_batch_is_not_filled_up_with_pictures_that_are_paid(size: str) -> None:
    with front() as one:
        answer = one.server.post(b'{"prompt": "a kite"}', **{BATCH_HEADER: size})

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == BATCH_HEADER
        assert "must be 1" in answer.json()["error"]["message"]
        assert one.bought() == []


def test_pictures_are_made_one_by_one_and_said_to_be() -> None:
    with front() as one:
        for headers in ({}, {BATCH_HEADER: "1"}):
            answer = one.server.post(b'{"prompt": "a kite", "n": 3}', **headers).json()

            made = [(entry["batch_size"], entry["batch_index"]) for entry in answer["data"]]
            assert made == [(1, 0)] * 3
        assert len(one.bought()) == 6
