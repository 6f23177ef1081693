from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen import contract
from imagegen.contract import BATCH_HEADER, TIMEOUT_HEADER
from imagegen.server.generation import image_seeds
from tests.unit.imagegen.conftest import Running, running, settings_for


def pixels(entry: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    image = Image.open(io.BytesIO(base64.b64decode(entry["b64_json"])))
    assert image.format == "PNG"
    return np.asarray(image).astype(np.int64)


def test_an_answer_tells_all_that_is_needed_to_make_the_image_again(server: Running) -> None:
    answer = server.generate(seed=7, num_inference_steps=3, guidance_scale=2, size="48x32").json()

    entry = answer["data"][0]
    assert pixels(entry).shape == (32, 48, 3)
    assert entry["revised_prompt"] is None
    assert {key: entry[key] for key in ("seed", "steps", "guidance_scale", "size")} == {
        "seed": 7,
        "steps": 3,
        "guidance_scale": 2.0,
        "size": "48x32",
    }
    assert entry["batch_size"] == answer["batch_size"] == 1
    assert isinstance(answer["created"], int)


def test_the_same_request_gives_the_same_bytes(server: Running) -> None:
    first = server.generate(seed=3, n=2).json()["data"]
    second = server.generate(seed=3, n=2).json()["data"]
    assert first == second


def test_image_i_has_the_seed_plus_i_and_is_its_solo_image(server: Running) -> None:
    entries = server.generate(seed=100, n=6).json()["data"]

    assert [entry["seed"] for entry in entries] == [100, 101, 102, 103, 104, 105]
    assert [entry["batch_size"] for entry in entries] == [4, 4, 4, 4, 2, 2]
    for entry in entries:
        alone = server.generate(seed=entry["seed"]).json()["data"][0]
        assert np.abs(pixels(entry) - pixels(alone)).max() <= 1


def test_seeds_wrap_at_32_bits_and_are_drawn_when_not_given(server: Running) -> None:
    assert image_seeds(2**32 - 1, 3) == (2**32 - 1, 0, 1)
    first, second = (server.generate().json()["data"][0]["seed"] for _ in range(2))
    assert first != second


def test_null_is_the_same_as_leaving_a_field_out(server: Running) -> None:
    assert server.generate(size=None, n=None, seed=1, negative_prompt=None).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param", "allowed"),
    [
        ({"prompt": ""}, "prompt", "1 to 2000 characters"),
        ({"prompt": "x" * 2001}, "prompt", "1 to 2000 characters"),
        ({"prompt": 5}, "prompt", "text"),
        ({"prompt": None}, "prompt", "missing"),
        ({"num_inference_steps": 0}, "num_inference_steps", "from 1 to 40"),
        ({"num_inference_steps": 41}, "num_inference_steps", "from 1 to 40"),
        ({"num_inference_steps": 2.5}, "num_inference_steps", "whole number"),
        ({"num_inference_steps": True}, "num_inference_steps", "whole number"),
        ({"n": 7}, "n", "from 1 to 6"),
        ({"seed": -1}, "seed", "from 0 to 4294967295"),
        ({"seed": 2**32}, "seed", "from 0 to 4294967295"),
        ({"guidance_scale": -0.5}, "guidance_scale", "from 0 to 50"),
        ({"guidance_scale": 51}, "guidance_scale", "from 0 to 50"),
        ({"guidance_scale": "7"}, "guidance_scale", "number"),
        ({"size": "33x32"}, "size", "multiples of 8"),
        ({"size": "8x32"}, "size", "from 16"),
        ({"size": "104x104"}, "size", "9216 pixels"),
        ({"size": "big"}, "size", "512x512"),
        ({"response_format": "url"}, "response_format", "b64_json"),
        ({"output_format": "jpeg"}, "output_format", "png"),
        ({"model": "other"}, "model", "kites"),
        ({"batch_size": 4}, "batch_size", "Allowed: prompt"),
        ({"size": "16x136"}, "size", "more than 8 times"),
        ({"size": ["32x32"]}, "size", "512x512"),
        ({"model": ["kites"]}, "model", "kites"),
        ({"scheduler": "FlowMatchEulerDiscrete"}, "scheduler", "one of: DDIM"),
        ({"scheduler": 1}, "scheduler", "one of: DDIM"),
        ({"prompt": "\t\n "}, "prompt", "not all of them blank"),
        ({"prompt": "x" * 76}, "prompt", "78 tokens, of which the model reads 77"),
        ({"negative_prompt": "x" * 90}, "negative_prompt", "92 tokens"),
        (
            {"negative_prompt": "grey", "guidance_scale": 1},
            "negative_prompt",
            "no effect at guidance_scale 1: leave it out, or set guidance_scale above 1",
        ),
        ({"output_compression": 80}, "output_compression", "must be 100: PNG loses nothing"),
        ({"quality": "hd"}, "quality", '"auto" or "standard": say it with num_inference_steps'),
        ({"style": "vivid"}, "style", "no style here: say it in the prompt"),
        ({"background": "transparent"}, "background", "no transparency"),
        ({"moderation": "high"}, "moderation", "not moderated"),
        ({"stream": True}, "stream", "when its images are ready"),
        ({"stream": 0}, "stream", "must be false"),
        ({"partial_images": 2}, "partial_images", "must be 0"),
        ({"partial_images": False}, "partial_images", "must be 0"),
        ({"user": 3}, "user", "512 characters"),
    ],
)
def test_a_bad_value_is_refused_with_the_field_and_what_is_allowed(
    server: Running, fields: dict[str, Any], param: str, allowed: str
) -> None:
    answer = server.generate(**fields)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert allowed in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_what_clients_of_openais_api_send_for_what_is_done_anyway_is_taken(
    server: Running,
) -> None:
    answer = server.generate(
        model="kites",
        response_format="b64_json",
        output_format="png",
        output_compression=100,
        quality="standard",
        background="opaque",
        moderation="auto",
        stream=False,
        partial_images=0,
        user="somebody",
        size="auto",
        n=1.0,
    )
    assert answer.status_code == 200


def test_a_request_may_choose_its_sampler_and_is_told_which_it_was(server: Running) -> None:
    own = server.generate(seed=3).json()
    other = server.generate(seed=3, scheduler="EulerDiscrete").json()

    assert (own["scheduler"], other["scheduler"]) == ("DDIM", "EulerDiscrete")
    assert own["data"][0]["b64_json"] != other["data"][0]["b64_json"]


def test_requests_may_choose_only_what_is_allowed(model_folder: Callable[[str], Path]) -> None:
    few = {"scheduler": "DDIM", "allow_schedulers": ("EulerDiscrete",)}
    with running(settings_for(model_folder("sd"), options=few)) as server:
        taken = [server.generate(scheduler=name) for name in ("DDIM", "EulerDiscrete")]
        refused = server.generate(scheduler="PNDM")
        listed = server.http.get("/v1/models").json()["data"][0]
        alone = server.http.get("/v1/models/kites").json()

    assert [answer.status_code for answer in taken] == [200, 200]
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "scheduler")
    assert error["message"] == "scheduler must be one of: DDIM, EulerDiscrete"
    assert listed == alone
    assert listed["schedulers"] == ["DDIM", "EulerDiscrete"]


def test_a_pinned_request_runs_in_batches_of_just_that_size(server: Running) -> None:
    before = {
        name: server.value(name)
        for name in ("imagegen_batch_size_sum", "imagegen_batch_size_count", contract.IMAGES_TOTAL)
    }
    body = json.dumps({"prompt": "a kite", "seed": 2**32 - 2, "n": 4}).encode()
    entries = server.post(body, **{BATCH_HEADER: "3"}).json()["data"]

    assert [entry["batch_size"] for entry in entries] == [3, 3, 3, 3]
    assert [entry["batch_index"] for entry in entries] == [0, 1, 2, 0]
    assert [entry["seed"] for entry in entries] == [2**32 - 2, 2**32 - 1, 0, 1]
    change = [server.value(name) - earlier for name, earlier in before.items()]
    assert change == [6, 2, 4], "what a batch is filled up with is not delivered"
    assert server.post(body, **{BATCH_HEADER: "3"}).json()["data"] == entries


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *((BATCH_HEADER, value) for value in ("0", "5", "-1", "2.0", "two", "99999", "")),
        *((TIMEOUT_HEADER, value) for value in ("0", "-1", "nan", "inf", "1e9", "soon", "")),
    ],
)
def test_a_header_of_ours_with_a_bad_value_is_refused(
    server: Running, header: str, value: str
) -> None:
    answer = server.post(b'{"prompt": "a kite"}', **{header: value})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == header


def test_every_answer_has_an_identity(server: Running) -> None:
    identities = {server.generate(n=n).headers["X-Request-Id"] for n in (1, 1, 99)}
    assert len(identities) == 3


def test_models_and_health(server: Running) -> None:
    assert [entry["id"] for entry in server.http.get("/v1/models").json()["data"]] == ["kites"]
    assert server.http.get(contract.LIVE_PATH).status_code == 200
    assert server.http.get(contract.READY_PATH).json() == {"ready": True}
    assert server.http.get("/v2/models/kites/ready").status_code == 200


def test_prompts_are_not_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="imagegen"):
        server.generate(prompt="a secret garden")
    assert "secret garden" not in caplog.text


def test_a_served_request_changes_all_of_its_series(server: Running) -> None:
    before = server.samples()
    server.generate(n=3, seed=1)
    after = server.samples()

    def change(name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(
            value - before.get(key, 0.0)
            for key, value in after.items()
            if key[0] == name and wanted <= key[1]
        )

    asked = "size_default.steps_default.images_several"
    assert change(contract.REQUESTS_TOTAL, outcome="ok", code="200") == 1
    assert change(contract.REQUEST_DURATION_COUNT, size_class="le_512") == 1
    assert change(contract.REQUEST_LOG_SECONDS_COUNT, request_class=asked) == 1
    seconds = change(contract.REQUEST_DURATION_SUM)
    log_sum = change(contract.REQUEST_LOG_SECONDS_SUM, request_class=asked)
    assert log_sum == pytest.approx(math.log(seconds * 1000), rel=1e-6)
    squares = change(contract.REQUEST_LOG_SECONDS_SQUARES_SUM, request_class=asked)
    assert squares == pytest.approx(log_sum**2, rel=1e-6)
    assert change(contract.IMAGES_TOTAL) == 3
    assert change(contract.DENOISE_STEPS_TOTAL) == 6
    assert change(contract.MEGAPIXELS_TOTAL) == pytest.approx(3 * 32 * 32 / 1e6)
    busy = change(contract.GPU_BUSY_SECONDS_TOTAL, device="cpu")
    assert 0 < busy < seconds
    assert change(contract.REQUEST_GPU_SECONDS_SUM) == pytest.approx(busy)
    assert change(contract.REQUEST_GPU_SECONDS_SQUARES_SUM) == pytest.approx(busy**2)
    assert change("imagegen_batch_size_count") == 1
    assert change("imagegen_stage_duration_seconds_count") == 4
    assert change("imagegen_step_duration_seconds_count") == 2


def test_a_refused_request_is_an_outcome_and_never_a_fast_answer(server: Running) -> None:
    invalid = server.value(contract.REQUESTS_TOTAL, outcome="invalid", code="400")
    served = server.value(contract.REQUEST_DURATION_COUNT)
    server.generate(n=99)

    assert server.value(contract.REQUESTS_TOTAL, outcome="invalid", code="400") == invalid + 1
    assert server.value(contract.REQUEST_DURATION_COUNT) == served
