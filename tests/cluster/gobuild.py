"""Building an upstream's programs from its pinned Go module."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.progress import Step
from tests.cluster.upstreams import Upstream, architecture

_NEED = re.compile(r"^go (\d+)\.(\d+)", re.MULTILINE)


def go_problem(upstreams: tuple[Upstream, ...]) -> str | None:
    """Return what is wrong with this machine's Go for building these, or None.

    The ``go`` lines of our modules say which version is needed.
    """
    need, demanding = max((_needed(upstream), upstream.source) for upstream in upstreams)
    wanted = f"Go {need[0]}.{need[1]} or newer"
    get = (
        "get it from https://go.dev/dl/ (or your distribution) and put it on PATH, or point "
        "KUBEBUILDER_ASSETS at a folder with the programs"
    )
    names = ", ".join(upstream.title for upstream in upstreams)
    go = shutil.which("go")
    if go is None:
        return f"{wanted} is needed to build {names}, and there is no Go: {get}."
    # Asked in the module's folder, where Go may bring in the version that the module wants.
    said = subprocess.run(
        [go, "env", "GOVERSION"], cwd=demanding, capture_output=True, text=True, check=False
    )
    found = re.search(r"go(\d+)\.(\d+)", said.stdout)
    if found is None:
        return f"{go} does not run ({said.stderr.strip()}): {get}."
    if (int(found[1]), int(found[2])) < need:
        return f"{wanted} is needed to build {names}, and {go} is {found[0]}: {get}."
    return None


def _needed(upstream: Upstream) -> tuple[int, int]:
    line = _NEED.search((upstream.source / "go.mod").read_text())
    if line is None:
        raise ClusterError(f"{upstream.source}/go.mod has no go line.")
    return int(line[1]), int(line[2])


def build(upstream: Upstream, step: Step) -> None:
    """Build an upstream's programs into its folder of the cache.

    The folder appears in one move when all is there, so a killed build leaves no half of it.

    Raises
    ------
    CommandError
        The build failed; the end of the compiler's words is in the message.
    """
    upstream.folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOARCH": architecture(),
        "GOOS": "linux",
        "GOWORK": "off",
        # The versions are pinned: a checkout's state says nothing about them.
        "GOFLAGS": "-buildvcs=false -mod=readonly",
    }
    step.say("downloading modules")
    _go(["go", "mod", "download"], upstream.source, environment)
    with tempfile.TemporaryDirectory(dir=upstream.folder.parent, prefix=".building-") as folder:
        out = Path(folder) / upstream.name
        out.mkdir(mode=0o755)
        step.say("compiling")
        _go(_command(upstream, out), upstream.source, environment)
        if upstream.multicall:
            (out / "main").rename(out / upstream.name)
            for program in upstream.programs:
                (out / program).symlink_to(upstream.name)
        publish(upstream, out)


def publish(upstream: Upstream, made: Path) -> None:
    """Move a folder of finished programs to its place in the cache.

    Raises
    ------
    ClusterError
        A program is missing.
    """
    missing = [program for program in upstream.programs if not (made / program).exists()]
    if missing:
        raise ClusterError(f"{upstream.title} came without {', '.join(missing)}.")
    if not upstream.folder.exists():
        made.rename(upstream.folder)


def _command(upstream: Upstream, out: Path) -> list[str]:
    stamps = "".join(f" -X {upstream.filled(stamp)}" for stamp in upstream.stamps)
    command = ["go", "build", "-trimpath", f"-ldflags=-s -w{stamps}"]
    if upstream.tags:
        command.append(f"-tags={','.join(upstream.tags)}")
    # One package gets a file name (etcd's is called "v3" otherwise), several get a folder.
    single = len(upstream.packages) == 1
    name = "main" if upstream.multicall else upstream.programs[0]
    target = str(out / name) if single else f"{out}/"
    return [*command, "-o", target, *upstream.packages]


def _go(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr)
