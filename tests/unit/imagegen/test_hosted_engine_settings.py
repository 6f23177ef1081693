"""Whom a hosted engine trusts, and with what it does not start."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagegen.contract import StartupFailureCode
from imagegen.engines.hosted import upstream
from imagegen.engines.hosted.engine import HostedEngine
from imagegen.engines.hosted.settings import HostedSettings
from imagegen.errors import StartupError
from tests.unit.imagegen.hosting import SIDE, engine, good, one_picture, refused
from tests.unit.imagegen.scripted import Scripted, scripted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture
def tls_api(certificate: tuple[Path, Path]) -> Iterator[Scripted]:
    key, file = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    with scripted(good(), tls=context) as api:
        yield api


def test_certificates_are_verified(
    tls_api: Scripted, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_FIRST_WAIT_SECONDS", 0.01)
    with engine(tls_api.url) as one:
        refusal = refused(one)
    assert refusal.code == "upstream_unreachable"
    assert "certificate verify failed" in refusal.message
    assert tls_api.seen == []

    with engine(tls_api.url, ca_file=certificate[1]) as one:
        assert one_picture(one).shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_url": "http://api.example.com/v1"}, "plain http is for the loopback only"),
        ({"base_url": "https://evil.example.com/v1"}, "leads to evil.example.com, which"),
        ({"base_url": "https://user:pass@api.example.com/v1"}, "no user, key, query"),
        ({"base_url": "https://api.example.com/v1?key=1"}, "no user, key, query"),
        ({"base_url": "ftp://api.example.com"}, "like https://host/v1"),
        ({"base_url": "api.example.com"}, "like https://host/v1"),
        ({"fields": ("user",)}, "--hosted-fields user is not one of response_format"),
        ({"price_per_image": -1.0}, "--price-per-image"),
        ({"price_per_hour": 0.0}, "--price-per-hour"),
        ({"key_file": Path("/nowhere/key")}, "the key file /nowhere/key cannot be read"),
        ({"ca_file": Path("/nowhere/ca")}, "No such file"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    settings = HostedSettings("https://api.example.com/v1", "m", ("api.example.com",))
    with pytest.raises(StartupError) as caught:
        HostedEngine(replace(settings, **changes))
    assert caught.value.code == StartupFailureCode.MODEL_INVALID
    assert words in caught.value.message
    assert "pass" not in caught.value.message.replace("--hosted-url", "")


@pytest.mark.parametrize("content", ["", "two keys", "sk-a\nsk-b", "sk-ä", "x" * 5000])
def test_a_key_file_holds_one_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    settings = HostedSettings("https://api.example.com/v1", "m", ("api.example.com",), file)
    with pytest.raises(StartupError) as caught:
        HostedEngine(settings)
    assert str(file) in caught.value.message
    assert "sk-" not in caught.value.message
