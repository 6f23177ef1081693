"""When memory runs out: splits, tiles, limits that are learned, and the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from imagegen import contract
from imagegen.contract import BATCH_HEADER, ExitCode, OomPhase
from tests.unit.imagegen.conftest import PATIENCE_SECONDS, MoodyServer, Running, Trouble


def images(server: Running, count: int = 4) -> list[str]:
    answer = server.generate(seed=5, n=count)
    assert answer.status_code == 200
    return [entry["b64_json"] for entry in answer.json()["data"]]


def wait_until_ready(server: Running) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not server.server.state.ready:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("phase", [OomPhase.ENCODE, OomPhase.DENOISE, OomPhase.DECODE])
def test_a_batch_that_does_not_fit_is_split_and_gives_the_same_images(
    moody_server: MoodyServer, phase: OomPhase
) -> None:
    with moody_server() as (server, trouble):
        alone = [server.generate(seed=5 + i).json()["data"][0]["b64_json"] for i in range(4)]
        trouble.calls.clear()
        trouble.fits, trouble.phase = 1, phase
        answer = server.generate(seed=5, n=4)

        assert answer.status_code == 200
        assert [entry["b64_json"] for entry in answer.json()["data"]] == alone
        assert [entry["batch_size"] for entry in answer.json()["data"]] == [1, 1, 1, 1]
        assert trouble.calls == [4, 2, 1, 1, 1, 1], "what did not fit once is not tried again"
        assert server.value(contract.OOM_TOTAL, phase=phase, recovered="true") == 2
        assert server.value(contract.OOM_TOTAL) == 2
        assert server.value(contract.BATCH_SPLITS_TOTAL, reason="oom") == 2
        wasted = server.value(contract.GPU_WASTED_SECONDS_TOTAL, reason="oom")
        assert 0 < wasted < server.value(contract.GPU_BUSY_SECONDS_TOTAL)


def test_the_next_batches_are_as_large_as_was_found_to_fit(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.fits = 2
        before = images(server)
        trouble.calls.clear()

        assert images(server) == before
        assert trouble.calls == [2, 2]
        assert server.value(contract.OOM_TOTAL) == 1


def test_an_image_that_fits_only_in_tiles_is_marked(moody_server: MoodyServer) -> None:
    with moody_server(trouble=Trouble(tiles_help=True)) as (server, trouble):
        whole = server.generate(seed=5).json()["data"][0]
        trouble.fits = 0
        tiled = server.generate(seed=5).json()["data"][0]
        again = server.generate(seed=5).json()["data"][0]

        assert (whole["degraded"], tiled["degraded"], again["degraded"]) == (
            [],
            ["tiled"],
            ["tiled"],
        )
        assert server.value(contract.OOM_TOTAL, phase="decode", recovered="true") == 1
        assert trouble.calls == [1, 1, 1, 1], "the second one needs no try without tiles"


def test_an_image_that_never_fits_is_an_honest_503(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.fits = 0
        answer = server.generate(n=2)

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "gpu_out_of_memory"
        assert answer.headers["X-Should-Retry"] == "false"
        assert trouble.calls == [2, 1, 1], "the last one decodes in tiles"
        assert server.value(contract.REQUESTS_TOTAL, outcome="oom", code="503") == 1
        assert server.value(contract.OOM_TOTAL, recovered="false") == 3
        assert server.value(contract.IMAGES_TOTAL) == 0
        assert server.value(contract.GPU_BUSY_SECONDS_TOTAL) > 0

        trouble.fits = 4
        assert server.generate(n=2).status_code == 200


def test_a_pinned_batch_is_never_split(moody_server: MoodyServer) -> None:
    with moody_server() as (server, trouble):
        trouble.fits = 3
        answer = server.post(b'{"prompt": "a kite", "n": 4}', **{BATCH_HEADER: "4"})

        assert answer.status_code == 503
        assert "a batch of 4" in answer.json()["error"]["message"]
        assert trouble.calls == [4]
        assert server.value(contract.OOM_TOTAL, recovered="false") == 1


def test_requests_that_are_too_large_do_not_end_a_server_that_works(
    moody_server: MoodyServer,
) -> None:
    with moody_server() as (server, trouble):
        trouble.fits, trouble.phase, trouble.spared_width = 0, OomPhase.DENOISE, 32
        for _ in range(7):
            assert server.generate(size="48x32").json()["error"]["code"] == "gpu_out_of_memory"
            wait_until_ready(server)  # every third one makes it check itself

        assert server.generate().status_code == 200
        assert server.value(contract.OOM_TOTAL, recovered="false") == 7
        assert server.http.get(contract.READY_PATH).status_code == 200


def test_a_device_with_memory_for_tiles_does_not_end_the_server(moody_server: MoodyServer) -> None:
    with moody_server(most_ooms=2) as (server, trouble):
        trouble.fits, trouble.tiles_help, trouble.tiles_help_width = 0, True, 32
        for _ in range(2):
            assert server.generate(size="48x32").json()["error"]["code"] == "gpu_out_of_memory"
        wait_until_ready(server)

        answer = server.generate()
        assert answer.status_code == 200
        assert answer.json()["data"][0]["degraded"] == ["tiled"]


def test_a_device_without_memory_for_anything_ends_the_process(
    moody_server: MoodyServer, tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    with moody_server(termination_log=log, most_ooms=2) as (server, trouble):
        trouble.fits, trouble.phase = 0, OomPhase.DENOISE
        assert [server.generate().status_code for _ in range(2)] == [503, 503]
        server.thread.join(PATIENCE_SECONDS)
    assert server.outcome == [ExitCode.OUT_OF_MEMORY]
    assert log.read_text().startswith("HostOOM: no memory any more for a single image")
