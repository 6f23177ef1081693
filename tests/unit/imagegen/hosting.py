"""A hosted engine, and what the API behind it answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from imagegen.engines.base import Batch, GenerationSettings, Images
from imagegen.engines.hosted.engine import HostedEngine
from imagegen.engines.hosted.settings import HostedSettings
from imagegen.errors import RequestRefusedError
from tests.unit.imagegen.engines import make, never
from tests.unit.imagegen.scripted import Reply

SIDE = 32


def image_file(side: int = SIDE, format_: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, format=format_)
    return buffer.getvalue()


def good(file: bytes = image_file(), **more: Any) -> Reply:
    entry = {"b64_json": base64.b64encode(file).decode()}
    return Reply(200, json.dumps({"created": 0, "data": [entry]}).encode(), **more)


def error(status: int, message: str = "no", **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), names)


@contextmanager
def engine(url: str, **changes: Any) -> Iterator[HostedEngine]:
    settings = HostedSettings(
        base_url=url,
        model="big-model",
        allowed_hosts=("127.0.0.1",),
        price_per_image=0.08,
        price_per_hour=4.0,
    )
    one = HostedEngine(replace(settings, **changes))
    try:
        yield one
    finally:
        one.close()


PAID_SECONDS = 0.08 / 4.0 * 3600


def one_picture(one: HostedEngine) -> Images:
    return make(one, ["a fox"], [7], width=SIDE, height=SIDE)


def refused(one: HostedEngine) -> RequestRefusedError:
    batch = Batch(("a fox",), (7,), GenerationSettings(SIDE, SIDE, 2, 4.0))
    (refusal,) = one.generate(batch, should_stop=never).refused.values()
    return refusal
