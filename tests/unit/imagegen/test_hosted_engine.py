from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from imagegen import contract
from imagegen.contract import Outcome, StartupFailureCode
from imagegen.engines.base import Batch, GenerationSettings
from imagegen.engines.hosted import upstream
from imagegen.engines.hosted.settings import FIELDS, HostedSettings
from imagegen.engines.settings import SyntheticSettings
from imagegen.engines.synthetic.drawing import draw
from imagegen.errors import GenerationCancelledError, StartupError
from tests.unit.imagegen.conftest import (
    PATIENCE_SECONDS,
    free_port,
    running,
    settings_for,
)
from tests.unit.imagegen.engines import levels, make, never
from tests.unit.imagegen.hosting import (
    PAID_SECONDS,
    SIDE,
    engine,
    error,
    good,
    image_file,
    one_picture,
    refused,
)
from tests.unit.imagegen.scripted import Reply, scripted

SECRET = "sk-a-very-secret-key"  # noqa: S105


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")
    return file


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_FIRST_WAIT_SECONDS", 0.01)


def test_pictures_of_a_real_server_come_through(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, engine=SyntheticSettings())
    with (
        running(settings) as behind,
        engine(f"{behind.url}/v1", model="kites", fields=FIELDS) as one,
    ):
        assert one.takes_negative_prompt is True
        images = make(one, ['"OPEN"', '"SHUT"'], [5, 9], width=64, height=32)

    for index, (text, seed) in enumerate([("OPEN", 5), ("SHUT", 9)]):
        drawn = draw(f'"{text}"', [text], seed=seed, width=64, height=32)
        assert np.array_equal(levels(images[index]), levels(drawn))


def test_a_server_in_front_counts_the_price_as_busy_time(tmp_path: Path) -> None:
    behind_settings = settings_for(tmp_path, engine=SyntheticSettings())
    with running(behind_settings) as behind:
        hosted = HostedSettings(
            base_url=f"{behind.url}/v1",
            model="kites",
            allowed_hosts=("127.0.0.1",),
            fields=("response_format", "seed", "num_inference_steps"),
            price_per_image=0.08,
            price_per_hour=4.0,
        )
        front_settings = settings_for(
            tmp_path, engine=hosted, port=free_port(), metrics_port=free_port()
        )
        with running(front_settings) as front:
            answer = front.generate(n=3, seed=1)
            same = behind.generate(n=3, seed=1)

            assert answer.status_code == 200
            pictures = [entry["b64_json"] for entry in answer.json()["data"]]
            assert pictures == [entry["b64_json"] for entry in same.json()["data"]]
            busy = front.value(contract.GPU_BUSY_SECONDS_TOTAL, device="hosted")
            assert busy == pytest.approx(3 * PAID_SECONDS)


def test_an_api_gets_the_fields_it_takes_and_no_others() -> None:
    batch = Batch(("a fox",), (7,), GenerationSettings(SIDE, SIDE, 20, 5.0), ("grey",))
    base = {"model": "big-model", "prompt": "a fox", "n": 1, "size": "32x32"}
    with scripted(good()) as api:
        for fields in ((), FIELDS):
            with engine(api.url, fields=fields) as one:
                one.generate(batch, should_stop=never)

    assert api.seen[0].fields == base
    assert api.seen[1].fields == {
        **base,
        "response_format": "b64_json",
        "output_format": "png",
        "negative_prompt": "grey",
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "seed": 7,
    }
    assert api.seen[0].path == "/v1/images/generations"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_common_formats_are_read(format_: str) -> None:
    file = image_file(format_=format_)
    with scripted(good(file)) as api, engine(api.url) as one:
        images = one_picture(one)
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert np.array_equal(levels(images[0]), expected)


def test_the_key_is_read_anew_for_every_call_and_shown_nowhere(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with scripted(good(), good(), error(401, SECRET)) as api:
        with engine(api.url, key_file=key_file) as one:
            one_picture(one)
            key_file.write_text("sk-rotated")
            one_picture(one)
            refusal = refused(one)
            key_file.unlink()
            gone = refused(one)

        sent = [seen.headers.get("Authorization") for seen in api.seen]
    assert sent == [f"Bearer {SECRET}", "Bearer sk-rotated", "Bearer sk-rotated"]
    assert refusal.code == gone.code == "upstream_key"
    shown = caplog.text + repr(one.describe()) + refusal.message + gone.message
    assert SECRET not in shown
    assert "sk-rotated" not in shown


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with scripted(good()) as api, engine(api.url) as one:
        one_picture(one)
    assert "Authorization" not in api.seen[0].headers


@pytest.mark.parametrize(
    "busy", [error(429), error(429, Retry_After="0"), error(503, Retry_After="0")]
)
def test_a_busy_api_is_asked_again(busy: Reply) -> None:
    with scripted(busy, busy, good()) as api, engine(api.url) as one:
        assert one_picture(one).shape == (1, SIDE, SIDE, 3)
        assert one.busy_clock() == pytest.approx(PAID_SECONDS)
    assert len(api.seen) == 3


@pytest.mark.parametrize(
    ("busy", "calls", "retry_after"),
    [
        (error(429), 3, 1),
        (error(429, Retry_After="3600"), 1, 3600),
        (error(429, Retry_After="soon"), 3, 1),
    ],
)
def test_an_api_that_stays_busy_makes_us_busy(busy: Reply, calls: int, retry_after: int) -> None:
    with scripted(busy) as api, engine(api.url) as one:
        refusal = refused(one)
        assert one.busy_clock() == 0
    assert (refusal.outcome, refusal.status, refusal.code) == (Outcome.BUSY, 429, "upstream_busy")
    assert refusal.retry_after == retry_after
    assert len(api.seen) == calls


@pytest.mark.parametrize(
    ("reply", "outcome", "code", "words"),
    [
        (error(500, SECRET), Outcome.ERROR, "upstream_failed", "status 500"),
        (error(502), Outcome.ERROR, "upstream_failed", "status 502"),
        (error(503), Outcome.ERROR, "upstream_failed", "status 503"),
        (error(401), Outcome.ERROR, "upstream_key", "does not accept the key"),
        (error(404), Outcome.ERROR, "upstream_failed", "status 404"),
        (error(302, Location="/elsewhere"), Outcome.ERROR, "upstream_redirect", "never followed"),
        (
            error(400, "no cats, please\n"),
            Outcome.INVALID,
            "upstream_refused",
            "no cats, please\\n",
        ),
        (Reply(400, b"<html>"), Outcome.INVALID, "upstream_refused", "does not say why"),
    ],
)
def test_what_an_api_refuses_is_asked_once_and_costs_nothing(
    reply: Reply, outcome: Outcome, code: str, words: str
) -> None:
    with scripted(reply) as api, engine(api.url) as one:
        refusal = refused(one)
        assert one.busy_clock() == 0
    assert (refusal.outcome, refusal.code) == (outcome, code)
    assert refusal.status in contract.OUTCOME_CODES[outcome]
    assert words in refusal.message
    assert SECRET not in refusal.message
    assert [seen.path for seen in api.seen] == ["/v1/images/generations"]


def body(data: Any) -> Reply:
    return Reply(200, json.dumps({"data": data}).encode())


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"not json"),
        Reply(200, b"[" * 100_000),
        Reply(200, b"[]"),
        body([]),
        body([{}]),
        body([{"url": "http://127.0.0.1/picture.png"}]),
        body([{"b64_json": 7}]),
        body([{"b64_json": "?"}]),
        body([{"b64_json": base64.b64encode(b"GIF89a").decode()}]),
        body([{"b64_json": base64.b64encode(image_file()[:200]).decode()}]),
        body([{"b64_json": base64.b64encode(image_file()).decode()}] * 2),
    ],
)
def test_an_answer_without_a_picture_is_an_error_that_was_paid(reply: Reply) -> None:
    with scripted(reply) as api, engine(api.url) as one:
        refusal = refused(one)
        assert one.busy_clock() == pytest.approx(PAID_SECONDS)
    assert (refusal.outcome, refusal.code) == (Outcome.ERROR, "upstream_garbage")
    assert len(api.seen) == 1


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_MOST_BODY_BYTES", 10_000)
    with scripted(Reply(200, b" " * 1_000_000)) as api, engine(api.url) as one:
        assert "far too large" in refused(one).message


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(200, b"no picture"), "upstream_garbage"),
        (good(image_file(side=48)), "upstream_wrong_size"),
        (good(headers={"Content-Length": "1000000"}), "upstream_timeout"),
        (Reply(200, b"no chunk\r\n", {"Transfer-Encoding": "chunked"}), "upstream_broken"),
        (error(401), "upstream_key"),
        (error(302, Location="/elsewhere"), "upstream_redirect"),
        (error(400, "no cats"), "upstream_refused"),
    ],
)
def test_clients_of_openais_api_do_not_pay_again_for_what_fails_again(
    tmp_path: Path, reply: Reply, code: str
) -> None:
    with scripted(good(), reply) as api:
        hosted = HostedSettings(
            api.url, model="big-model", allowed_hosts=("127.0.0.1",), timeout_seconds=1.0
        )
        with (
            running(settings_for(tmp_path, engine=hosted)) as front,
            openai.OpenAI(base_url=f"{front.url}/v1", api_key="any") as client,
            pytest.raises(openai.APIStatusError) as caught,
        ):
            client.images.generate(prompt="a fox")

    assert caught.value.code == code
    assert caught.value.response.headers["X-Should-Retry"] == "false"
    assert len(api.seen) == 2, "the warm-up, and the request once"


def test_a_picture_of_another_size_is_not_delivered() -> None:
    with scripted(good(image_file(side=48))) as api, engine(api.url) as one:
        refusal = refused(one)
    assert refusal.code == "upstream_wrong_size"
    assert "48x48 pixels instead of 32x32" in refusal.message


def test_an_api_that_does_not_answer_in_time_may_have_to_be_paid() -> None:
    go_on = threading.Event()
    with (
        scripted(good(before=lambda: go_on.wait(PATIENCE_SECONDS))) as api,
        engine(api.url, timeout_seconds=0.1) as one,
    ):
        refusal = refused(one)
        go_on.set()
        assert one.busy_clock() == pytest.approx(PAID_SECONDS)
    assert (refusal.outcome, refusal.status) == (Outcome.TIMEOUT, 504)
    assert len(api.seen) == 1


def test_a_trickling_answer_does_not_outlast_the_time_limit() -> None:
    with (
        scripted(good(headers={"Content-Length": "1000000"})) as api,
        engine(api.url, timeout_seconds=0.2) as one,
    ):
        assert refused(one).code == "upstream_timeout"
    assert len(api.seen) == 1


def test_an_api_that_is_not_there_costs_nothing() -> None:
    with engine(f"http://127.0.0.1:{free_port()}/v1") as one:
        refusal = refused(one)
        assert one.busy_clock() == 0
    assert (refusal.outcome, refusal.code) == (Outcome.ERROR, "upstream_unreachable")


def test_the_pictures_of_a_batch_are_made_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=PATIENCE_SECONDS)
    with scripted(good(before=together.wait)) as api, engine(api.url) as one:
        images = make(one, ["a fox"] * 4, [1, 2, 3, 4], width=SIDE, height=SIDE)
    assert images.shape == (4, SIDE, SIDE, 3)


def with_a_bad_word_refused(fields: dict[str, Any]) -> Reply:
    return error(400, "no") if fields["prompt"] == "a bad word" else good()


def test_a_picture_that_is_refused_ends_and_costs_no_other() -> None:
    batch = Batch(("a fox", "a bad word", "a hen"), (1, 2, 3), GenerationSettings(SIDE, SIDE, 1, 0))
    with scripted(with_a_bad_word_refused) as api, engine(api.url) as one:
        made = one.generate(batch, should_stop=never)
        assert one.busy_clock() == pytest.approx(2 * PAID_SECONDS)
        alone = one_picture(one)

    assert {place: one.code for place, one in made.refused.items()} == {1: "upstream_refused"}
    assert list(made.shares) == [1, 0, 1]
    for place in (0, 2):
        assert np.array_equal(made.images[place], alone[0])
    assert len(api.seen) == 4


def test_requests_that_run_together_pay_for_their_own_pictures_and_once(tmp_path: Path) -> None:
    go_on = threading.Event()

    def held(_fields: dict[str, Any]) -> Reply:
        return good(before=lambda: go_on.wait(PATIENCE_SECONDS))

    # The warm-up, a request that keeps the server busy, and four that run together after it.
    with scripted(good(), held, with_a_bad_word_refused) as api:
        hosted = HostedSettings(
            base_url=api.url,
            model="big-model",
            allowed_hosts=("127.0.0.1",),
            price_per_image=0.08,
            price_per_hour=4.0,
        )
        settings = settings_for(tmp_path, engine=hosted)
        with running(settings) as front, ThreadPoolExecutor() as pool:
            first = pool.submit(front.generate)
            wait_until(lambda: len(api.seen) == 2)
            prompts = ["a fox", "a bad word", "a hen", "a dog"]
            answers = [pool.submit(front.generate, prompt=prompt) for prompt in prompts]
            wait_until(lambda: front.server.state.admission.depth() == 4)
            go_on.set()

            assert first.result().status_code == 200
            assert [answer.result().status_code for answer in answers] == [200, 400, 200, 200]
            assert answers[1].result().json()["error"]["code"] == "upstream_refused"
            assert len(api.seen) == 6
            assert front.value(f"{contract.BATCH_SIZE}_count") == 2
            assert front.value(contract.BATCH_SPLITS_TOTAL) == 0
            assert front.value(contract.GPU_WASTED_SECONDS_TOTAL) == 0
            shares = front.value(contract.REQUEST_GPU_SECONDS_SUM)
            assert shares == pytest.approx(4 * PAID_SECONDS)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_warm_up_that_is_refused_is_told(tmp_path: Path) -> None:
    with scripted(error(401)) as api:
        hosted = HostedSettings(api.url, model="big-model", allowed_hosts=("127.0.0.1",))
        with running(settings_for(tmp_path, engine=hosted)) as front:
            failure = front.outcome[0]

    assert isinstance(failure, StartupError)
    assert failure.code is StartupFailureCode.WARMUP_FAILED
    assert "does not accept the key" in failure.message


def test_a_call_is_given_up_while_the_api_works_and_the_next_is_right() -> None:
    go_on = threading.Event()
    with (
        scripted(good(before=lambda: go_on.wait(PATIENCE_SECONDS)), good()) as api,
        engine(api.url) as one,
    ):
        batch = Batch(("a fox",), (7,), GenerationSettings(SIDE, SIDE, 1, 0.0))
        with pytest.raises(GenerationCancelledError):
            one.generate(batch, should_stop=lambda: bool(api.seen))
        go_on.set()
        assert one_picture(one).shape == (1, SIDE, SIDE, 3)
        assert one.busy_clock() == pytest.approx(2 * PAID_SECONDS)
