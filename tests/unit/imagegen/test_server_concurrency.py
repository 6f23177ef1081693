"""Requests that run together: real pipelines of all architectures behind a real server."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from imagegen import contract
from imagegen.contract import BATCH_HEADER
from imagegen.engines.base import Batch, Engine, GenerationSettings
from imagegen.server.settings import Defaults, ServeSettings
from imagegen.server.watchdog import to_pixels
from tests.unit.imagegen.conftest import (
    ARCHITECTURES,
    PATIENCE_SECONDS,
    MoodyEngine,
    Running,
    Trouble,
    load,
    running,
    settings_for,
)

Fields = dict[str, Any]
Pixels = NDArray[np.uint8]
Held = tuple[Running, Trouble]

DEFAULTS = Defaults(steps=2, guidance_scale=5.0, width=32, height=16)
SHAPES: list[Fields] = [
    {},
    {"size": "16x32"},
    {"num_inference_steps": 3},
]
PROMPTS = ["a fox", "a tower at noon", "two blue boats", "the letter K"]


@pytest.fixture(scope="module")
def held_server(model_folder: Callable[[str], Path]) -> Iterator[Callable[[str], Held]]:
    """Servers with a real pipeline that begin a batch only when the test lets them."""
    with ExitStack() as servers:

        @cache
        def start(architecture: str) -> Held:
            trouble = Trouble()

            def loader(_settings: ServeSettings) -> Engine:
                engine = load(model_folder(architecture), MoodyEngine)
                engine.trouble = trouble
                trouble.engine = engine
                return engine  # type: ignore[no-any-return]

            settings = settings_for(
                model_folder(architecture), defaults=DEFAULTS, queue_capacity=64
            )
            return servers.enter_context(running(settings, loader)), trouble

        yield start


def mixed(count: int) -> list[Fields]:
    """Requests of a few shapes, one with several images; eight that differ come again and again."""
    return [
        {
            "prompt": PROMPTS[kind % len(PROMPTS)],
            "seed": 1000 + 7 * kind,
            "n": 3 if kind == 5 else 1,
            **SHAPES[kind % len(SHAPES)],
        }
        for kind in (number * 3 % 8 for number in range(count))
    ]


def all_at_once(server: Running, trouble: Trouble, requests: list[Fields]) -> list[httpx.Response]:
    """Send all before the first batch runs, so that they are queued together."""
    trouble.started.clear()
    trouble.may_go_on.clear()
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        # The first one is in the worker's hands; the others wait.
        first = pool.submit(server.generate, seed=1)
        assert trouble.started.wait(PATIENCE_SECONDS)
        rest = [pool.submit(server.generate, **fields) for fields in requests]
        while server.server.state.admission.depth() < len(requests):
            threading.Event().wait(0.01)
        trouble.calls.clear()
        trouble.may_go_on.set()
        assert first.result().status_code == 200
        return [each.result() for each in rest]


def alone(trouble: Trouble, fields: Fields, entry: Fields) -> list[Pixels]:
    """Make one image again without the server and without other requests, at each place of a batch.

    The batch has the size that the answer told: rounding depends on it, and for some architectures
    on the place in it, but never on the neighbours.
    """
    assert trouble.engine is not None
    torch.set_num_threads(1)  # as in the worker: sums are split by thread
    width, height = map(int, fields.get("size", "32x16").split("x"))
    settings = GenerationSettings(width, height, fields.get("num_inference_steps", 2), 5.0)
    count = entry["batch_size"]
    batch = Batch((fields["prompt"],) * count, (entry["seed"],) * count, settings)
    made = trouble.engine.generate(batch, should_stop=lambda: False)
    return [to_pixels(image) for image in made.images]


def pixels(entry: Fields) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["b64_json"]))))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_32_mixed_requests_at_once_get_what_they_would_get_alone(
    held_server: Callable[[str], Held], architecture: str
) -> None:
    server, trouble = held_server(architecture)
    requests = mixed(32)
    solo: dict[tuple[int, int], list[Pixels]] = {}
    answers = all_at_once(server, trouble, requests)

    assert [answer.status_code for answer in answers] == [200] * 32
    calls = list(trouble.calls)
    assert sum(calls) == sum(fields["n"] for fields in requests)
    assert sum(size == 4 for size in calls) >= len(calls) - len(SHAPES), "batches are full"
    for fields, answer in zip(requests, answers, strict=True):
        entries = answer.json()["data"]
        assert [entry["seed"] for entry in entries] == [
            fields["seed"] + index for index in range(fields["n"])
        ]
        for entry in entries:
            which = (entry["seed"], entry["batch_size"])
            if which not in solo:
                solo[which] = alone(trouble, fields, entry)
            assert np.array_equal(pixels(entry), solo[which][entry["batch_index"]]), which


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_of_the_largest_batch_is_its_solo_image_to_one_level(
    held_server: Callable[[str], Held], architecture: str
) -> None:
    server, _ = held_server(architecture)
    one, most = (
        server.post(b'{"prompt": "a fox", "seed": 5}', **{BATCH_HEADER: str(size)}).json()["data"][
            0
        ]
        for size in (1, 4)
    )
    assert (one["batch_size"], most["batch_size"]) == (1, 4)
    difference = pixels(one).astype(int) - pixels(most)
    assert np.abs(difference).max() <= 1


def test_a_member_that_leaves_a_batch_changes_nothing_for_the_others(
    held_server: Callable[[str], Held],
) -> None:
    server, trouble = held_server("sd")
    cancelled = server.value(contract.REQUESTS_TOTAL, outcome="cancelled")
    stays = [{"prompt": prompt, "seed": 40 + i} for i, prompt in enumerate(PROMPTS[:2])]
    trouble.started.clear()
    trouble.may_go_on.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.generate, seed=1)
        assert trouble.started.wait(PATIENCE_SECONDS)
        waiting = [pool.submit(server.generate, **fields) for fields in stays]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/v1/images/generations",
                json={"prompt": "somebody impatient", "seed": 9},
                timeout=0.3,
            )
        while server.value(contract.REQUESTS_TOTAL, outcome="cancelled") == cancelled:
            threading.Event().wait(0.01)
        trouble.may_go_on.set()
        answers = [first.result(), *(each.result() for each in waiting)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for fields, answer in zip(stays, answers[1:], strict=True):
        entry = answer.json()["data"][0]
        again = alone(trouble, fields, entry)[entry["batch_index"]]
        assert np.array_equal(pixels(entry), again)


def test_busy_time_is_shared_over_the_members_of_a_batch(
    held_server: Callable[[str], Held],
) -> None:
    server, trouble = held_server("sd")
    names = (
        contract.GPU_BUSY_SECONDS_TOTAL,
        contract.REQUEST_GPU_SECONDS_SUM,
        contract.REQUEST_GPU_SECONDS_COUNT,
        contract.GPU_WASTED_SECONDS_TOTAL,
        contract.IMAGES_TOTAL,
        f"{contract.BATCH_SIZE}_sum",
    )
    before = [server.value(name) for name in names]
    requests = mixed(8)
    all_at_once(server, trouble, requests)
    busy, shared, count, wasted, images, batch_sizes = (
        server.value(name) - earlier for name, earlier in zip(names, before, strict=True)
    )

    pictures = sum(fields["n"] for fields in requests) + 1
    assert busy == pytest.approx(shared, rel=1e-9)
    assert busy > 0
    assert wasted == 0
    assert count == len(requests) + 1
    assert images == batch_sizes == pictures
