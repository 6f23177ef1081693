"""The body of ``POST /v1/images/generations``: every field is checked before the engine sees it.

Diffusers itself accepts nonsense in silence (no steps, NaN as guidance, sizes it rounds), so that
nothing here is left to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imagegen.contract import BATCH_HEADER, TIMEOUT_HEADER
from imagegen.engines.base import Engine, GenerationSettings, Picture, Task
from imagegen.engines.sources import read_source
from imagegen.server.fields import FIXED, Fields, refuse
from imagegen.server.settings import Defaults, Limits

__all__ = [
    "LEAST_SIDE",
    "MAX_SEED",
    "NO_GUIDANCE",
    "TIMEOUT_SECONDS",
    "EngineRules",
    "ImageRequest",
    "RequestRules",
]

MAX_SEED = 2**32 - 1
"""CPU generators use 32 bits of a seed; larger ones would collide in silence."""

TIMEOUT_SECONDS = (0.001, 86400.0)
"""Least and greatest time that a client may say it waits."""

NO_GUIDANCE = 1.0
"""Up to this guidance scale a picture is made in one pass, which reads the prompt alone."""

LEAST_SIDE = 16
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_SOURCE_BYTES_PER_PIXEL = 6
"""Of a source: three bytes a pixel, a little more for noise in a PNG, and base64 on top."""


@dataclass(frozen=True)
class EngineRules:
    """What the loaded model allows; the fields are those of :class:`Engine`."""

    size_multiple: int
    max_side: int
    takes_negative_prompt: bool
    schedulers: tuple[str, ...] = ()
    max_prompt_tokens: int | None = None
    count_tokens: Callable[[str], int | None] = lambda _prompt: None
    task: Task = Task.GENERATE
    scale: int = 1
    max_steps: int | None = None
    guidance_range: tuple[float, float] | None = None
    negative_prompt_needs_guidance: bool = True
    """Whether negative prompts have no effect up to :data:`NO_GUIDANCE`."""
    unused_fields: tuple[str, ...] = ()
    makes_batches: bool = True
    """Whether pictures run together, and not one by one whatever the size of a batch."""

    @classmethod
    def of(cls, engine: Engine) -> EngineRules:
        """Ask an engine."""
        return cls(
            size_multiple=engine.size_multiple,
            max_side=engine.max_side,
            takes_negative_prompt=engine.takes_negative_prompt,
            schedulers=engine.schedulers,
            max_prompt_tokens=engine.max_prompt_tokens,
            count_tokens=engine.count_tokens,
            task=engine.task,
            scale=engine.scale,
            max_steps=engine.max_steps,
            guidance_range=engine.guidance_range,
            negative_prompt_needs_guidance=not engine.is_remote,  # who knows what it does
            unused_fields=engine.unused_fields,
            makes_batches=not engine.is_remote,
        )


@dataclass(frozen=True, eq=False)
class ImageRequest:
    """A checked request."""

    prompt: str
    count: int
    seed: int | None
    negative_prompt: str | None
    settings: GenerationSettings
    request_class_size: tuple[int, int] | None
    request_class_steps: int | None
    pinned_batch: int | None = None
    """Pictures of every batch it runs in, without other requests; None if that is free."""
    timeout_seconds: float | None = None
    """How long the client waits, if it says."""
    source: Picture | None = None
    """The picture to enlarge."""


@dataclass(frozen=True)
class RequestRules:
    """Checks requests against what is declared and what the model can do."""

    model_name: str
    defaults: Defaults
    limits: Limits
    engine: EngineRules

    @property
    def upscales(self) -> bool:
        """Whether requests bring the picture to enlarge."""
        return self.engine.task is Task.UPSCALE

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that a body may have."""
        own = ("negative_prompt", "num_inference_steps", "guidance_scale", "seed", "scheduler")
        source = ("image",) if self.upscales else ()
        return ("prompt", "model", "n", "size", "user", *own, *source, *FIXED)

    @property
    def max_steps(self) -> int:
        """Most denoising steps of a request."""
        return min(self.limits.max_steps, self.engine.max_steps or self.limits.max_steps)

    @property
    def guidance(self) -> tuple[float, float]:
        """Least and greatest guidance scale of a request."""
        low, high = self.engine.guidance_range or (0.0, math.inf)
        return max(0.0, low), min(self.limits.max_guidance_scale, high)

    @property
    def takes_negative_prompt(self) -> bool:
        """Whether a negative prompt can have an effect."""
        engine = self.engine
        guided = not engine.negative_prompt_needs_guidance or self.guidance[1] > NO_GUIDANCE
        return engine.takes_negative_prompt and guided

    @property
    def max_pinned_batch(self) -> int:
        """Most pictures of a pinned batch: to fill one up at a remote engine would be to buy."""
        return self.limits.max_batch_size if self.engine.makes_batches else 1

    @property
    def max_body_bytes(self) -> int:
        """Size of the largest body that can be a request."""
        pixels = self.limits.max_pixels // self.engine.scale**2 if self.upscales else 0
        return self.limits.max_body_bytes + pixels * _SOURCE_BYTES_PER_PIXEL

    def check(self, body: bytes, headers: Mapping[str, str] | None = None) -> ImageRequest:
        """Check a request.

        Parameters
        ----------
        body
            A JSON object in UTF-8.
        headers
            With names in any case; those that are not ours do not matter.

        Raises
        ------
        RequestRefusedError
            Status 400, with the field and what is allowed in it.
        """
        pinned_batch, timeout_seconds = self._headers(headers or {})
        fields = Fields(body, self.fields)
        prompt = fields.text("prompt", self.limits.max_prompt_characters)
        if prompt is None:
            refuse("prompt", "prompt is missing: say what the image shall show")
        self._check_tokens("prompt", prompt)
        if fields.get("model") not in (None, self.model_name):
            refuse("model", f"model must be {self.model_name!r}", code="model_not_found")
        fields.text("user", self.limits.max_user_characters)
        fields.check_fixed()
        for name in self.engine.unused_fields:
            if fields.get(name) is not None:
                message = f"the model is not told {name}, which would have no effect: leave it out"
                refuse(name, message, code="unsupported_value")
        count = fields.whole("n", 1, self.limits.max_images_per_request)
        seed = fields.whole("seed", 0, MAX_SEED)
        source, size = self._source(fields)
        steps = fields.whole("num_inference_steps", 1, self.max_steps)
        guidance = fields.number("guidance_scale", *self.guidance)
        guidance = self.defaults.guidance_scale if guidance is None else guidance
        width, height = size or (self.defaults.width, self.defaults.height)
        return ImageRequest(
            prompt=prompt,
            count=count or 1,
            seed=seed,
            negative_prompt=self._negative_prompt(fields, guidance),
            settings=GenerationSettings(
                width=width,
                height=height,
                steps=steps or self.defaults.steps,
                guidance_scale=guidance,
                scheduler=fields.choice("scheduler", self.engine.schedulers),
            ),
            request_class_size=size,
            request_class_steps=steps,
            pinned_batch=pinned_batch,
            timeout_seconds=timeout_seconds,
            source=source,
        )

    def check_size(self, width: int, height: int) -> None:
        """Check that the model can make pictures of a size and that the limits allow it.

        Raises
        ------
        RequestRefusedError
            As :meth:`check` does.
        """
        multiple, longest = self.engine.size_multiple, self.engine.max_side
        if any(side % multiple or not LEAST_SIDE <= side <= longest for side in (width, height)):
            refuse(
                "size",
                f"width and height must be multiples of {multiple} from {LEAST_SIDE} to {longest}",
            )
        if width * height > self.limits.max_pixels:
            refuse("size", f"width times height must not exceed {self.limits.max_pixels} pixels")
        most = self.limits.max_aspect_ratio
        if max(width, height) > most * min(width, height):
            refuse("size", f"no side may be more than {most:g} times as long as the other")

    def _headers(self, headers: Mapping[str, str]) -> tuple[int | None, float | None]:
        batch, timeout = headers.get(BATCH_HEADER), headers.get(TIMEOUT_HEADER)
        pinned = None
        if batch is not None:
            most = self.max_pinned_batch
            pinned = int(batch) if re.fullmatch(r"[0-9]{1,4}", batch) else 0
            if not 1 <= pinned <= most:
                allowed = f"a whole number from 1 to {most}"
                if not self.engine.makes_batches:
                    allowed = "1, or left out: the model makes every picture on its own"
                refuse(BATCH_HEADER, f"{BATCH_HEADER} must be {allowed}")
        if timeout is None:
            return pinned, None
        seconds = float(timeout) if _NUMBER.fullmatch(timeout) else 0.0
        low, high = TIMEOUT_SECONDS
        if not low <= seconds <= high:
            refuse(TIMEOUT_HEADER, f"{TIMEOUT_HEADER} must be {low:g} to {high:g} seconds")
        return pinned, seconds

    def _check_tokens(self, name: str, prompt: str) -> None:
        """Refuse a prompt of which the model would not read all: it would do so in silence."""
        most = self.engine.max_prompt_tokens
        count = None if most is None else self.engine.count_tokens(prompt)
        if most is not None and count is not None and count > most:
            message = f"{name} has {count} tokens, of which the model reads {most}: shorten it"
            refuse(name, message, code="too_many_tokens")

    def _size(self, fields: Fields) -> tuple[int, int] | None:
        value = fields.get("size")
        if value is None or value == "auto":
            return None
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            refuse("size", "size must look like '512x512': width x height in pixels")
        width, height = int(match[1]), int(match[2])
        self.check_size(width, height)
        return width, height

    def _source(self, fields: Fields) -> tuple[Picture | None, tuple[int, int] | None]:
        """Read the picture to enlarge, which decides on the size."""
        if not self.upscales:
            return None, self._size(fields)
        value, size = fields.get("image"), fields.get("size")
        if not isinstance(value, str):
            refuse("image", "image is missing: the picture to enlarge, in base64")
        if size not in (None, "auto"):
            refuse("size", "leave size out: it follows from the image")
        try:
            source, (width, height) = read_source(
                value,
                scale=self.engine.scale,
                size_multiple=self.engine.size_multiple,
                max_side=self.engine.max_side,
                max_pixels=self.limits.max_pixels,
            )
        except ValueError as error:
            refuse("image", f"image: {error}")
        self.check_size(width, height)
        return source, (width, height)

    def _negative_prompt(self, fields: Fields, guidance: float) -> str | None:
        text = fields.text("negative_prompt", self.limits.max_prompt_characters)
        if text is not None:
            if not self.takes_negative_prompt:
                refuse("negative_prompt", "this model takes no negative_prompt; leave it out")
            if self.engine.negative_prompt_needs_guidance and guidance <= NO_GUIDANCE:
                refuse(
                    "negative_prompt",
                    f"negative_prompt has no effect at guidance_scale {guidance:g}: leave it out, "
                    f"or set guidance_scale above {NO_GUIDANCE:g}",
                )
            self._check_tokens("negative_prompt", text)
        return text
