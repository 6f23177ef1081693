"""The unmodified client of OpenAI against servers on real sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai.types import Image as ImageEntry
from openai.types import ImagesResponse
from PIL import Image

from imagegen import contract
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, MoodyServer, Running, free_port
from tests.unit.imagegen.test_real_process import wait_until_ready

PROMPT = 'a red kite, and below it "HELLO"'
MOST_MEGAPIXELS = 0.03


def client_of(url: str, *, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key="any", timeout=PATIENCE_SECONDS, max_retries=retries
    )


@dataclass
class Served:
    """``imagegen serve --engine synthetic`` in a process of its own."""

    url: str
    metrics: str

    @property
    def client(self) -> openai.OpenAI:
        return client_of(self.url)

    def requests(self, **labels: str) -> float:
        """Count requests so far."""
        lines = httpx.get(self.metrics).text.splitlines()
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(contract.REQUESTS_TOTAL + "{") and all(w in line for w in wanted)
        )


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    port, metrics_port = free_port(), free_port()
    arguments = f"""serve --engine synthetic --steps 2 --guidance-scale 5 --width 64 --height 64
        --max-steps 8 --max-batch-size 2 --max-images-per-request 4 --max-pixels 65536
        --model-name kites --host 127.0.0.1 --port {port} --metrics-port {metrics_port}"""
    rates = json.dumps({"fits_megapixels": MOST_MEGAPIXELS})
    process = subprocess.Popen(
        [sys.executable, "-m", "imagegen", *arguments.split(), "--synthetic", rates],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http:
            wait_until_ready(http, process)
        yield Served(url, f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        process.kill()
        process.wait()


def levels(entry: ImageEntry) -> NDArray[np.int64]:
    """Decode a picture as a user would."""
    assert entry.b64_json is not None
    image = Image.open(io.BytesIO(base64.b64decode(entry.b64_json, validate=True)))
    assert image.format == "PNG"
    return np.asarray(image).astype(np.int64)


def entries_of(answer: ImagesResponse) -> list[ImageEntry]:
    assert answer.data is not None
    return answer.data


def seed_of(entry: ImageEntry) -> int:
    assert entry.model_extra is not None
    return int(entry.model_extra["seed"])


# -- what is served --------------------------------------------------------------------------------
def test_images_come_in_the_number_and_size_asked_for(served: Served) -> None:
    answer = served.client.images.generate(
        prompt=PROMPT,
        model="kites",
        n=3,
        size="96x64",
        response_format="b64_json",
        user="somebody",
        extra_body={"seed": 7, "num_inference_steps": 3},
    )

    assert [levels(entry).shape for entry in entries_of(answer)] == [(64, 96, 3)] * 3
    assert [seed_of(entry) for entry in entries_of(answer)] == [7, 8, 9]
    assert answer.size == "96x64"
    assert answer.model_extra is not None
    assert answer.model_extra["steps"] == 3


def test_an_answer_is_valid_for_the_types_of_the_client(served: Served) -> None:
    raw = served.client.images.with_raw_response.generate(prompt=PROMPT, n=2)

    # The client builds its objects without a check; this is the check.
    answer = ImagesResponse.model_validate_json(raw.content, strict=True)
    assert len(entries_of(answer)) == 2
    assert raw.headers["X-Request-Id"] == raw.request_id


def test_the_model_is_listed_and_described(served: Served) -> None:
    models = served.client.models

    assert [model.id for model in models.list()] == ["kites"]
    assert models.retrieve("kites").owned_by == "imagegen"
    with pytest.raises(openai.NotFoundError):
        models.retrieve("others")


async def test_the_asynchronous_client_is_served_at_the_same_time(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="any") as client:
        answers = await asyncio.gather(
            *(client.images.generate(prompt=PROMPT, extra_body={"seed": seed}) for seed in range(8))
        )

    assert [seed_of(entries_of(answer)[0]) for answer in answers] == list(range(8))
    alone = served.client.images.generate(prompt=PROMPT, extra_body={"seed": 5})
    assert (levels(entries_of(answers[5])[0]) == levels(entries_of(alone)[0])).all()


def test_image_i_of_a_real_pipeline_is_the_image_of_its_seed(server: Running) -> None:
    client = client_of(server.url)
    several = client.images.generate(prompt=PROMPT, n=4, extra_body={"seed": 40})

    for index, entry in enumerate(entries_of(several)):
        assert seed_of(entry) == 40 + index
        pinned = {contract.BATCH_HEADER: "4"}
        same_shape, alone = (
            client.images.generate(
                prompt=PROMPT, extra_body={"seed": 40 + index}, extra_headers=headers
            )
            for headers in (pinned, {})
        )
        assert (levels(entries_of(same_shape)[0]) == levels(entry)).all()
        assert np.abs(levels(entries_of(alone)[0]) - levels(entry)).max() <= 1


# -- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ask", "param", "code"),
    [
        (lambda it: it.generate(prompt=""), "prompt", "invalid_value"),
        (lambda it: it.generate(prompt=PROMPT, n=5), "n", "invalid_value"),
        (lambda it: it.generate(prompt=PROMPT, size="1792x1024"), "size", "invalid_value"),
        (lambda it: it.generate(prompt=PROMPT, model="dall-e-3"), "model", "model_not_found"),
        (lambda it: it.generate(prompt=PROMPT, style="vivid"), "style", "unsupported_value"),
        (lambda it: it.generate(prompt=PROMPT, quality="hd"), "quality", "unsupported_value"),
        (lambda it: it.generate(prompt=PROMPT, stream=True), "stream", "unsupported_value"),
        (
            lambda it: it.generate(prompt=PROMPT, response_format="url"),
            "response_format",
            "unsupported_value",
        ),
        (
            lambda it: it.generate(prompt=PROMPT, extra_body={"seed": -1}),
            "seed",
            "invalid_value",
        ),
        (
            lambda it: it.generate(prompt=PROMPT, extra_body={"steps": 2}),
            "steps",
            "unknown_parameter",
        ),
    ],
)
def test_a_bad_request_names_the_field_and_the_reason(
    served: Served, ask: Callable[[openai.resources.Images], object], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(served.client.images)

    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    assert caught.value.message


def test_what_has_no_memory_is_a_503_that_the_client_does_not_ask_again(served: Served) -> None:
    before = served.requests(code="503")

    with pytest.raises(openai.APIStatusError) as caught:
        client_of(served.url, retries=3).images.generate(prompt=PROMPT, size="256x256")

    assert caught.value.status_code == 503
    assert caught.value.code == "gpu_out_of_memory"
    assert served.requests(code="503") == before + 1


def test_a_full_queue_is_a_rate_limit_with_a_time_to_come_back(moody_server: MoodyServer) -> None:
    with moody_server(queue_capacity=1) as (running, trouble), ThreadPoolExecutor(3) as pool:
        trouble.may_go_on.clear()
        with going_on_at_the_end(trouble.may_go_on):
            client = client_of(running.url)
            first = pool.submit(client.images.generate, prompt=PROMPT)
            assert trouble.started.wait(PATIENCE_SECONDS)
            waiting = [pool.submit(client.images.generate, prompt=PROMPT) for _ in range(2)]
            refused = soonest(waiting)

            error = refused.exception()
            assert isinstance(error, openai.RateLimitError)
            assert (error.code, error.type) == ("queue_full", "rate_limit_error")
            assert int(error.response.headers["Retry-After"]) >= 1

            trouble.may_go_on.set()
            for each in {first, *waiting} - {refused}:
                assert len(entries_of(each.result(PATIENCE_SECONDS))) == 1


@contextmanager
def going_on_at_the_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def soonest(futures: list[Future[ImagesResponse]]) -> Future[ImagesResponse]:
    return wait(futures, PATIENCE_SECONDS, return_when=FIRST_COMPLETED).done.pop()


def test_a_server_that_drains_refuses_and_serves_what_it_took(moody_server: MoodyServer) -> None:
    with moody_server() as (running, trouble), ThreadPoolExecutor(1) as pool:
        trouble.may_go_on.clear()
        with going_on_at_the_end(trouble.may_go_on):
            client = client_of(running.url)
            accepted = pool.submit(client.images.generate, prompt=PROMPT)
            assert trouble.started.wait(PATIENCE_SECONDS)
            running.server.state.close()

            with pytest.raises(openai.InternalServerError) as caught:
                client.images.generate(prompt=PROMPT)

            assert caught.value.status_code == 503
            trouble.may_go_on.set()
            assert len(entries_of(accepted.result(PATIENCE_SECONDS))) == 1
