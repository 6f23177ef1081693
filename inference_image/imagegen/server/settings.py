"""Settings of one server process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagegen import contract
from imagegen.engines.settings import Demand, EngineSettings

__all__ = ["Defaults", "Limits", "ServeSettings"]


@dataclass(frozen=True)
class Defaults:
    """What a request gets when it does not say otherwise."""

    steps: int
    guidance_scale: float
    width: int
    height: int


@dataclass(frozen=True)
class Limits:
    """The most that a request may ask for."""

    max_steps: int
    max_batch_size: int
    max_images_per_request: int
    max_pixels: int
    max_aspect_ratio: float = 8.0
    max_prompt_characters: int = 2000
    max_user_characters: int = 512
    max_guidance_scale: float = 50.0
    max_body_bytes: int = 65536
    """Of a body without a source."""
    max_bodies_bytes: int = 256 << 20
    """Of all bodies together that are being read or checked, beyond the above of each."""


@dataclass(frozen=True)
class ServeSettings:
    """All that ``imagegen serve`` is told; times in seconds."""

    engine: EngineSettings
    model_name: str
    revision: str
    defaults: Defaults
    limits: Limits
    latency_edges: tuple[float, ...]
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known before it runs
    port: int = contract.HTTP_PORT
    metrics_port: int = contract.METRICS_PORT
    queue_capacity: int = 16
    """Requests that may wait."""
    queue_seconds: float | None = None
    """Estimated time of the engine that accepted work may take; None is the request's time-out."""
    batch_window_seconds: float = 0.005
    """Longest that a request waits for others to run with it, if others may come."""
    request_timeout_seconds: float = contract.REQUEST_TIMEOUT_SECONDS
    watchdog: frozenset[str] = frozenset(contract.WATCHDOG_CHECKS)
    """Checks of finished pictures, of `contract.WATCHDOG_CHECKS`."""
    most_ooms: int = 3
    """Single pictures in a row without memory, after which it is checked whether any fits."""
    drain_seconds: float = 20.0
    termination_log: Path = Path(contract.TERMINATION_LOG)

    def demand(self) -> Demand:
        """Sum up what the engine must be able to do."""
        return Demand(
            width=self.defaults.width,
            height=self.defaults.height,
            steps=self.defaults.steps,
            guidance_scale=self.defaults.guidance_scale,
            max_steps=self.limits.max_steps,
            max_batch_size=self.limits.max_batch_size,
        )

    def mistakes(self) -> list[str]:
        """Name settings that contradict each other, in words of the command line."""
        found = []
        if self.defaults.steps > self.limits.max_steps:
            found.append(f"--steps {self.defaults.steps} is above --max-steps")
        if self.defaults.width * self.defaults.height > self.limits.max_pixels:
            found.append("--width times --height is above --max-pixels")
        if not 0 <= self.defaults.guidance_scale <= self.limits.max_guidance_scale:
            found.append(f"--guidance-scale must be 0 to {self.limits.max_guidance_scale:g}")
        return found
