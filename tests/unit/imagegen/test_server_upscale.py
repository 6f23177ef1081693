"""A server whose model enlarges pictures."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from imagegen import contract
from imagegen.server.settings import Defaults, Limits
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, Running, running, settings_for

SCALE = 2


@pytest.fixture(scope="module")
def enlarger(model_folder: Callable[[str], Path]) -> Iterator[Running]:
    settings = settings_for(
        model_folder("latent-upscaler"),
        defaults=Defaults(steps=2, guidance_scale=1.0, width=128, height=128),
        limits=Limits(max_steps=4, max_batch_size=2, max_images_per_request=2, max_pixels=128**2),
        queue_capacity=16,
    )
    with running(settings) as one:
        assert not one.outcome, one.outcome
        yield one


def source(width: int = 64, height: int = 64, *, shade: int = 90) -> str:
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.paste((shade, 200, 40), (0, 0, width // 2, height // 2))
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def picture(answer: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    data = base64.b64decode(answer["data"][0]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)


def test_the_result_is_larger_than_its_source_and_follows_from_it(enlarger: Running) -> None:
    answers = [
        enlarger.generate(image=source(64, 32, shade=shade), seed=3).json() for shade in (90, 240)
    ]

    assert answers[0]["size"] == "128x64"
    assert picture(answers[0]).shape == (64, 128, 3)
    assert np.abs(picture(answers[0]) - picture(answers[1])).max() > 10


def test_sources_of_one_size_run_together_each_with_its_own(enlarger: Running) -> None:
    sources = [source(shade=shade) for shade in (10, 240)]
    with ThreadPoolExecutor() as pool:
        together = list(
            pool.map(lambda each: enlarger.generate(image=each, seed=3).json(), sources)
        )
    for each, answer in zip(sources, together, strict=True):
        alone = enlarger.generate(image=each, seed=3).json()
        assert np.abs(picture(alone) - picture(answer)).max() <= 1


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "image", "missing"),
        ({"image": "no base64"}, "image", "base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "image", "picture"),
        ({"image": source(96, 96)}, "image", "pixels"),
        ({"image": source(33, 32)}, "image", "multiples of"),
        ({"image": source(), "size": "256x256"}, "size", "leave size out"),
    ],
)
def test_what_cannot_be_enlarged_is_refused(
    enlarger: Running, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = enlarger.generate(**fields)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def long(size: int) -> bytes:
    """Give a request that its white space makes so long."""
    return json.dumps({"prompt": "a kite", "image": source()}).encode().ljust(size)


def wait_until_taken(enlarger: Running, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while enlarger.server.state.bodies.taken != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_bodies_together_have_a_bound_that_ordinary_ones_do_not_feel(
    enlarger: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = enlarger.settings.limits.max_body_bytes
    monkeypatch.setattr(enlarger.server.state.bodies, "most", 12_000)
    head = (
        b"POST /v1/images/generations HTTP/1.1\r\nHost: kites\r\n"
        b"Content-Type: application/json\r\nContent-Length: 80000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", enlarger.settings.port)) as slow:
        slow.sendall(head + b" " * (ordinary + 10_000))
        wait_until_taken(enlarger, 10_000)
        answer = enlarger.post(long(ordinary + 2_001))

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "too_many_bodies"
        assert answer.headers["Retry-After"] == "1"
        assert enlarger.post(long(ordinary)).status_code == 200
        assert enlarger.post(long(ordinary + 2_000)).status_code == 200
        wait_until_taken(enlarger, 10_000)
    wait_until_taken(enlarger, 0)
    assert enlarger.post(long(ordinary + 13_000)).status_code == 200, "there is no other one"
    wait_until_taken(enlarger, 0)


def test_the_description_asks_for_a_source(enlarger: Running) -> None:
    described = enlarger.http.get("/openapi.json").json()
    schema = described["components"]["schemas"]["Request"]

    assert jsonschema.Draft202012Validator(schema).is_valid({"prompt": "a", "image": source()})
    assert not jsonschema.Draft202012Validator(schema).is_valid({"prompt": "a"})


def test_elsewhere_a_source_is_unknown(server: Running) -> None:
    answer = server.generate(image=source())
    assert answer.json()["error"]["code"] == "unknown_parameter"
    assert server.value(contract.READY) == 1
