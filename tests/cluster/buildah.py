"""buildah and skopeo with all of their files in our cache, and the base image."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.errors import CommandError
from tests.cluster.processes import run
from tests.cluster.progress import Progress, Step

_SUITE = "bookworm"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_CACHE = "/var/cache/pip"
_PIP_SETTINGS = {
    "extra-index-url", "find-links", "index-url", "no-index", "prefer-binary", "proxy", "retries",
    "timeout", "trusted-host",
}  # fmt: skip
_UNNEEDED = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
# Unnamed images that a build leaves: they are what makes the next one quick.
_STAGES_KEPT = 12
# In a mount namespace of its own nothing stays mounted, even when the builder is killed; and the
# tools' own cache, which has a fixed place in /var/lib, vanishes with it.
_UNSEEN = (
    "unshare", "--mount", "--propagation", "private",
    "sh", "-c", 'mount -t tmpfs none /var/lib && exec "$0" "$@"',
)  # fmt: skip


class Store:
    """A store of images.

    Parameters
    ----------
    root
        Folder for everything that the tools write.
    """

    def __init__(self, root: Path) -> None:
        self._storage = root / "storage"
        self._state = root / "run"
        self.scratch = root / "tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah, and return what it printed.

        Raises
        ------
        CommandError
            It failed.
        """
        return run(self._buildah(*arguments), env={"TMPDIR": str(self.scratch)}).strip()

    def stream(self, step: Step, *arguments: str | Path) -> None:
        """Run buildah, and show on the step how far it is.

        Raises
        ------
        CommandError
            It failed; the message has its last lines.
        """
        _stream(self._buildah(*arguments), step, TMPDIR=str(self.scratch))

    def has(self, name: str) -> bool:
        """Tell whether an image of this name is there."""
        with contextlib.suppress(CommandError):
            self.buildah("inspect", "--type=image", "--format={{.FromImageID}}", name)
            return True
        return False

    def forget_old(self, repository: str, *, keep: int) -> None:
        """Remove all but the newest images of a repository, and stages that served older builds."""
        listed = self.buildah("images", "--format={{.Name}}:{{.Tag}}").splitlines()
        named = [name for name in listed if name.startswith(f"{repository}:")]
        stages = self.buildah("images", "--quiet", "--filter=dangling=true").splitlines()
        for name in (*named[keep:], *stages[_STAGES_KEPT:]):
            with contextlib.suppress(CommandError):  # something newer stands on it
                self.buildah("rmi", name)

    def export(self, name: str, layout: Path) -> None:
        """Write an image as an OCI layout; layers that are in the folder are not written again.

        Skopeo does it because buildah can write such layouts with compressed layers only, and
        compresses all of them each time.
        """
        source = f"containers-storage:[overlay@{self._storage}+{self._state}]{name}"
        run(
            [*_UNSEEN, "skopeo", "--insecure-policy", "copy", "--quiet",
             "--dest-oci-accept-uncompressed-layers", source, f"oci:{layout}"],
            env={"TMPDIR": str(self.scratch)},
        )  # fmt: skip

    def _buildah(self, *arguments: str | Path) -> list[str]:
        options = [
            "--storage-driver=overlay",
            f"--root={self._storage}",
            f"--runroot={self._state}",
        ]
        return [*_UNSEEN, "buildah", *options, *map(str, arguments)]


def ensure_base(store: Store, base: str, progress: Progress) -> None:
    """See to it that the base image is in the store.

    It is pulled where its registry answers, and made of Debian packages where none does.

    Parameters
    ----------
    store
        Where it is to be.
    base
        Full reference, with its registry: an official image of Python on Debian.
    progress
        Where to show what goes on.

    Raises
    ------
    CommandError
        There is neither a registry nor a Debian mirror to be reached.
    """
    if store.has(base):
        return
    if _answers(base.partition("/")[0]):
        with (
            contextlib.suppress(CommandError),
            progress.step(f"Pulling {base}", key="image-base-pull", estimate=20) as step,
        ):
            store.stream(step, "pull", base)
            return
    progress.say(f"No image registry gives {base}: made of Debian packages instead.")
    with progress.step("base image", key="image-base", estimate=60) as step:
        _bootstrap(store, base, step)


def _answers(host: str) -> bool:
    try:
        with socket.create_connection((host, 443), timeout=3):
            return True
    except OSError:
        return False


def _bootstrap(store: Store, base: str, step: Step) -> None:
    """Make the base image: a minimal Debian with its Python, which is 3.11 as in the real one."""
    with tempfile.TemporaryDirectory(dir=store.scratch, prefix="base-") as folder:
        root = Path(folder, "root")
        argv = ["unshare", "--mount", "--propagation", "private", "debootstrap",
                "--variant=minbase", f"--include={_BASE_PACKAGES}", _SUITE, str(root)]  # fmt: skip
        _stream(argv, step, PATH=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        for unneeded in _UNNEEDED:
            shutil.rmtree(root / unneeded)
            (root / unneeded).mkdir()
        step.say("writing")
        container = store.buildah("from", "scratch")
        try:
            store.buildah("add", "--quiet", container, root, "/")
            store.buildah("config", "--cmd=python3", "--env=LANG=C.UTF-8",
                      "--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                      container)  # fmt: skip
            store.buildah("commit", "--quiet", "--disable-compression", container, base)
        finally:
            store.buildah("rm", container)


@contextlib.contextmanager
def host_settings(folder: Path) -> Iterator[list[str]]:
    """Give the volumes that let pip in a build reach what pip on this machine reaches.

    They are mounted for the build only: neither certificates nor addresses get into an image.
    """
    settings = {key: value for key, value in _pip_settings().items() if key in _PIP_SETTINGS}
    volumes = [
        f"{path}:{path}:ro"
        for path in settings.get("find-links", "").split()
        if path.startswith("/") and Path(path).is_dir()
    ]
    named = (os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    bundle = next((path for path in (*named, _BUNDLE) if path and Path(path).is_file()), None)
    if bundle:
        volumes.append(f"{Path(bundle).resolve()}:{_BUNDLE}:ro")
        settings["cert"] = _BUNDLE
    cache = Path(run([sys.executable, "-m", "pip", "cache", "dir"]).strip())
    if cache.is_dir():
        volumes.append(f"{cache}:{_PIP_CACHE}")
        settings["cache-dir"] = _PIP_CACHE
    settings["disable-pip-version-check"] = "true"
    settings["root-user-action"] = "ignore"
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="pip-", suffix=".conf") as file:
        file.write("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        file.flush()
        yield [*volumes, f"{file.name}:/etc/pip.conf:ro"]


def _pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine: from its files, then from the environment."""
    found: dict[str, dict[str, str]] = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        found.setdefault(section, {})[option] = " ".join(str(ast.literal_eval(value)).split())
    return {**found.get("global", {}), **found.get("install", {}), **found.get(":env:", {})}


def _stream(argv: Sequence[str], step: Step, **env: str) -> None:
    """Run a program, and show on the step how far it is."""
    last: deque[str] = deque(maxlen=80)
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env={**os.environ, **env},
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            last.append(line)
            if gist := _gist(line):
                step.say(gist)
    if process.returncode != 0:
        raise CommandError(list(argv), process.returncode, "".join(last))


def _gist(line: str) -> str | None:
    """Return a few words for a line of buildah, pip or debootstrap that tells of progress."""
    for pattern, words in (
        (r"(?:\[(\d+/\d+)\] )?STEP (\d+)/(\d+): (.{0,40})", "step {2} of {3}: {4}"),
        (r"\s*Downloading (\S+?)-\d\S* \((.+)\)", "downloading {1}, {2}"),
        (r"Installing collected packages", "installing packages"),
        (r"I: (Retrieving|Extracting|Unpacking|Configuring) (\S+?)(?:\.{3})?$", "{1} {2}"),
    ):
        if found := re.match(pattern, line):
            return words.format(found[0], *found.groups()).lower()
    return None
