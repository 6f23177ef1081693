"""Official releases, where the network lets them through."""

from __future__ import annotations

import hashlib
import http.client
import io
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.errors import ClusterError
from tests.cluster.gobuild import publish
from tests.cluster.paths import cache_root
from tests.cluster.progress import Step
from tests.cluster.upstreams import Release, Upstream

CONNECT_SECONDS = 4.0
REMEMBER_SECONDS = 24 * 3600.0
_CHUNK = 1 << 20


class Refused(Exception):
    """The network does not let this download through."""


def download(upstream: Upstream, step: Step) -> None:
    """Download an upstream's programs into its folder of the cache.

    Raises
    ------
    Refused
        No release is known, or its host does not answer or says no; that is remembered for a
        day, so that it costs its few seconds once.
    ClusterError
        The checksum is wrong.
    """
    release = upstream.release
    if release is None:
        raise Refused(f"{upstream.title} has no release")
    host = _host(release)
    if reason := _remembered(host):
        raise Refused(reason)
    upstream.folder.parent.mkdir(parents=True, exist_ok=True)
    step.say(f"asking {host}")
    try:
        with tempfile.TemporaryDirectory(dir=upstream.folder.parent, prefix=".loading-") as folder:
            made = Path(folder) / upstream.name
            made.mkdir(mode=0o755)
            _fill(upstream, release, made, step)
            publish(upstream, made)
    except (OSError, http.client.HTTPException) as error:
        raise Refused(_remember(host, error)) from error


def refusal(upstream: Upstream) -> str | None:
    """Return why an upstream's release cannot be downloaded, or None when it can be."""
    release = upstream.release
    if release is None:
        return f"{upstream.title} has no release"
    host = _host(release)
    if reason := _remembered(host):
        return reason
    try:
        _get(upstream.filled(release.checksum, upstream.programs[0]))
    except (OSError, http.client.HTTPException) as error:
        return _remember(host, error)
    return None


def _host(release: Release) -> str:
    return urlsplit(release.url).hostname or ""


def _remembered(host: str) -> str | None:
    memory = cache_root() / "refused" / host
    if memory.exists() and time.time() - memory.stat().st_mtime < REMEMBER_SECONDS:
        return memory.read_text()
    return None


def _remember(host: str, error: Exception) -> str:
    reason = f"{host} is out of reach ({error})"
    memory = cache_root() / "refused" / host
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(reason)
    return reason


def _fill(upstream: Upstream, release: Release, folder: Path, step: Step) -> None:
    if release.per_program:
        for program in upstream.programs:
            data = _checked(upstream, release, step, program)
            _write(folder / program, data)
        return
    archive = _checked(upstream, release, step)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            program = Path(member.name).name
            file = tar.extractfile(member) if program in upstream.programs else None
            if file is not None:
                _write(folder / program, file.read())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o755)


def _checked(upstream: Upstream, release: Release, step: Step, program: str = "") -> bytes:
    """Download a file, and compare it with the checksum that its publisher gives."""
    url = upstream.filled(release.url, program)
    sums = _get(upstream.filled(release.checksum, program)).decode()
    wanted = _checksum(sums, url.rpartition("/")[2])
    data = _get(url, step)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ClusterError(f"{url} has SHA-256 {found}, but its publisher says {wanted}.")
    return data


def _checksum(sums: str, file: str) -> str:
    for line in sums.splitlines():
        words = line.split()
        if len(words) == 1 or (words and words[-1].lstrip("*").rpartition("/")[2] == file):
            return words[0]
    raise ClusterError(f"The list of checksums does not name {file}.")


def _get(url: str, step: Step | None = None) -> bytes:
    if not url.startswith("https://"):
        raise ClusterError(f"{url} is not https.")
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 - https
        total = int(answer.headers.get("Content-Length") or 0)
        data = bytearray()
        while chunk := answer.read(_CHUNK):
            data += chunk
            if step is not None:
                step.bytes_done(len(data), total)
    return bytes(data)
