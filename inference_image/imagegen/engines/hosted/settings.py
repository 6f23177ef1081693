"""Where a hosted model is, how to reach it, and what it costs."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["FIELDS", "HOUR_SECONDS", "HostedSettings", "read_key"]

FIELDS: Final = (
    "response_format",
    "output_format",
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
)
"""Fields beside model, prompt, n and size that an API may take; it gets those that are declared."""

HOUR_SECONDS: Final = 3600.0
_MOST_KEY_CHARACTERS: Final = 4096


@dataclass(frozen=True)
class HostedSettings:
    """A model behind an OpenAI-compatible images API.

    Attributes
    ----------
    base_url
        Up to and including ``/v1``; https, or plain http to the loopback only.
    model
        The API's name for it.
    allowed_hosts
        Host names that may be connected to: the URL's one must be among them.
    key_file
        File that holds the key alone; read again for every call, so that it can be rotated.
    ca_file
        Certificates to trust instead of the public ones.
    fields
        Those of :data:`FIELDS` that the API takes.
    price_per_image
        In the currency of the pool's price.
    price_per_hour
        What an hour of the pool's devices that the pod is counted for costs. A picture counts as
        so much busy time as makes its price: ``price_per_image / price_per_hour`` hours.
    timeout_seconds
        For one call.
    """

    base_url: str
    model: str
    allowed_hosts: tuple[str, ...]
    key_file: Path | None = None
    ca_file: Path | None = None
    fields: tuple[str, ...] = ()
    price_per_image: float = 0.0
    price_per_hour: float = HOUR_SECONDS
    timeout_seconds: float = 120.0

    @property
    def host(self) -> str:
        """Host name of the URL."""
        return urlsplit(self.base_url).hostname or ""

    def mistakes(self) -> list[str]:
        """Name what cannot be, in words of the command line."""
        found = []
        url = urlsplit(self.base_url)
        if url.scheme not in {"https", "http"} or not url.hostname:
            found.append("--hosted-url must be like https://host/v1")
        elif url.username or url.password or url.query or url.fragment:
            found.append("--hosted-url must have no user, key, query or fragment")
        elif url.scheme == "http" and not _is_loopback(url.hostname):
            found.append("--hosted-url must be https; plain http is for the loopback only")
        elif url.hostname not in {host.lower() for host in self.allowed_hosts}:
            allowed = ", ".join(self.allowed_hosts) or "none"
            found.append(
                f"--hosted-url leads to {url.hostname}, which --hosted-allow-host does not name "
                f"(allowed: {allowed})"
            )
        unknown = [name for name in self.fields if name not in FIELDS]
        if unknown:
            found.append(f"--hosted-fields {unknown[0]} is not one of {', '.join(FIELDS)}")
        if not math.isfinite(self.price_per_image) or self.price_per_image < 0:
            found.append("--price-per-image must be a number of 0 or more")
        if not math.isfinite(self.price_per_hour) or self.price_per_hour <= 0:
            found.append("--price-per-hour must be a number above 0")
        return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(path: Path) -> str:
    """Read a key from its file.

    Raises
    ------
    ValueError
        Without a word of what the file holds.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ValueError(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the key file {path} must hold printable ASCII") from error
    if not key or len(key) > _MOST_KEY_CHARACTERS or not key.isprintable() or " " in key:
        raise ValueError(f"the key file {path} must hold one key and nothing else")
    return key
