"""A machine that is not ready is told what it lacks and how to get it, before anything starts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import debian, gobuild, network, preflight, releases
from tests.cluster.errors import ClusterError
from tests.cluster.handle import Mode
from tests.cluster.paths import ClusterPaths
from tests.cluster.upstreams import EVERYTHING, HELM, TESTPOD
from tests.cluster_tests.unprivileged import run_as_nobody

pytestmark = pytest.mark.cluster


def test_a_node_without_root_is_refused_with_a_way_out(tmp_path: Path) -> None:
    up = run_as_nobody(tmp_path, "up")

    assert up.returncode == 1
    assert "A node needs root" in up.stderr
    assert "--control-plane-only" in up.stderr


def test_a_machine_without_go_and_without_programs_is_told_which_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    problems = preflight.check(Mode.NODE, (TESTPOD,), 0)

    about_go = [problem for problem in problems if "Go" in problem]
    assert len(about_go) == 1
    assert "Go 1.26 or newer is needed to build test pod, and there is no Go" in about_go[0]
    assert "https://go.dev/dl/" in about_go[0]


def test_a_go_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    problem = gobuild.go_problem((HELM,))

    assert problem is not None
    assert "Go 1.26 or newer" in problem
    assert f"{old} is go1.19" in problem


def test_a_port_that_is_taken_is_named() -> None:
    with network.listen() as taken:
        port = taken.getsockname()[1]

        problems = preflight.check(Mode.CONTROL_PLANE, (), port)

    assert len(problems) == 1
    assert f"Port {port} on 127.0.0.1 is taken" in problems[0]


def test_a_disk_that_is_too_small_is_told_with_both_figures() -> None:
    greedy = replace(TESTPOD, disk_megabytes=10**9)

    problems = preflight.disk_problems((greedy,), Mode.NODE)

    assert len(problems) == 1
    assert "1,000,001,000 MB of free disk are needed" in problems[0]
    assert "XDG_CACHE_HOME" in problems[0]


@pytest.mark.node
def test_a_kernel_without_a_feature_is_told_which() -> None:
    probes = (("time machine", "CONFIG_TIME_MACHINE", "echo no such device >&2; false"),)

    assert preflight.kernel_problems() == []
    (problem,) = preflight.kernel_problems(probes)
    assert "The kernel has no time machine here (no such device)" in problem
    assert "it needs CONFIG_TIME_MACHINE" in problem


def test_a_program_is_known_by_its_package() -> None:
    absent = debian.Package("no-such-package", "no-such-program", "nothing")

    assert debian.missing((absent, debian.OPENSSL)) == [absent]


def test_versions_are_read_from_the_pins() -> None:
    for upstream in EVERYTHING:
        if upstream.module:
            assert upstream.version.startswith("v")
    prometheus = next(item for item in EVERYTHING if item.name == "prometheus")
    assert prometheus.filled("{number}").startswith("3.")


@pytest.mark.parametrize("name", ["", "Demo", "-demo", "a/b", "x" * 31])
def test_a_name_that_would_not_do_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="small letters, digits and dashes"):
        ClusterPaths(name)


def test_the_checksum_of_a_file_is_found_alone_and_in_a_list() -> None:
    several = "aa11  etcd-arm64.tar.gz\nbb22 *release/etcd-amd64.tar.gz\n"

    assert releases._checksum("cc33\n", "kubectl") == "cc33"
    assert releases._checksum(several, "etcd-amd64.tar.gz") == "bb22"
    with pytest.raises(ClusterError, match=r"does not name helm\.tar\.gz"):
        releases._checksum(several, "helm.tar.gz")
