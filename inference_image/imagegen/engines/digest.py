"""The digest that pins a model folder."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagegen.engines.threads import cpu_threads

__all__ = ["folder_digest"]


def folder_digest(folder: Path, files: list[str]) -> str:
    r"""Give the digest of a folder's files.

    It is what the standard tools print for the folder, so that nobody has to trust this function::

        find -L . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum

    Parameters
    ----------
    folder
        The folder.
    files
        Paths of its files, relative, with slashes, as
        :func:`imagegen.engines.folder.list_files` gives them.

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.
    """
    names = sorted(files, key=lambda name: name.encode())
    with ThreadPoolExecutor(cpu_threads()) as pool:
        sums = pool.map(lambda name: _sha256(folder / name), names)
        lines = [f"{digest}  {name}\n" for digest, name in zip(sums, names, strict=True)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
