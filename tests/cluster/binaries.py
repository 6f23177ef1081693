"""The programs of the cluster: found, downloaded or built, in that order."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.cluster import gobuild, releases
from tests.cluster.errors import ClusterError, PreflightError
from tests.cluster.paths import links_folder
from tests.cluster.progress import Progress
from tests.cluster.upstreams import EVERYTHING, Upstream

ASSETS = "KUBEBUILDER_ASSETS"
# A compiler run uses all cores, but its linker only one: two at a time keep two cores busy.
BUILDS_AT_ONCE = 2


def find(program: str) -> Path | None:
    """Return where a program is, by environment first and cache second, or None.

    ``KUBEBUILDER_ASSETS`` names a folder with programs, as controller-runtime's tests use it.
    """
    if (assets := os.environ.get(ASSETS)) and (given := Path(assets) / program).exists():
        return given.absolute()
    for upstream in EVERYTHING:
        if program in upstream.programs and (cached := upstream.folder / program).exists():
            return cached
    return None


def path_of(program: str) -> Path:
    """Return where a program is.

    Raises
    ------
    ClusterError
        It is not there yet.
    """
    found = find(program)
    if found is None:
        raise ClusterError(
            f"{program} is not built yet: `python -m tests.cluster prepare` gets every program."
        )
    return found


def missing(upstreams: Iterable[Upstream]) -> tuple[Upstream, ...]:
    """Return the upstreams of which a program is neither given nor in the cache."""
    return tuple(
        upstream
        for upstream in upstreams
        if any(find(program) is None for program in upstream.programs)
    )


def ensure(upstreams: tuple[Upstream, ...], progress: Progress) -> None:
    """Get the programs that are not there yet: several at once, by download or build.

    Raises
    ------
    ClusterError
        A program can neither be downloaded nor built.
    """
    wanted = missing(upstreams)
    if wanted:
        with ThreadPoolExecutor(BUILDS_AT_ONCE) as pool:
            work: list[Future[None]] = [pool.submit(_get, item, progress) for item in wanted]
            try:
                for future in work:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    _link(upstreams)


def _get(upstream: Upstream, progress: Progress) -> None:
    title = f"{upstream.title} {upstream.filled('{version}') if upstream.module else ''}".strip()
    with progress.step(title, key=upstream.name, estimate=upstream.build_seconds) as step:
        try:
            releases.download(upstream, step)
        except releases.Refused as refused:
            problem = gobuild.go_problem((upstream,))
            if problem is not None:
                raise PreflightError([f"{problem} Downloads do not help: {refused}."]) from refused
            gobuild.build(upstream, step)
        step.conclude(_size(upstream))


def _size(upstream: Upstream) -> str:
    files = [path for path in upstream.folder.iterdir() if not path.is_symlink()]
    return f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB"


def _link(upstreams: Iterable[Upstream]) -> None:
    """Keep links to the current programs in one folder, for people's ``PATH``."""
    folder = links_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for upstream in upstreams:
        for program in upstream.programs:
            target = find(program)
            if target is None:
                raise ClusterError(f"{upstream.title} came without {program}.")
            link = folder / program
            if link.is_symlink() and link.readlink() == target:
                continue
            fresh = folder / f".{program}-{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(link)
