"""Prints what pyproject.toml asks for, without the project itself.

usage: requirements.py EXTRA[,EXTRA...] | requirements.py --digest [EXTRA[,EXTRA...]]
"""

import hashlib
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def requirements(extras: list[str]) -> list[str]:
    """Return the project's dependencies and those of the named extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["optional-dependencies"][extra] for extra in extras]
    return sorted({*project["dependencies"], *(item for group in groups for item in group)})


def digest(extras: list[str]) -> str:
    """Name a set of dependencies with their pins: another set, another environment."""
    wanted = "\n".join(requirements(extras))
    pins = (ROOT / "constraints.txt").read_text()
    return hashlib.sha256(f"{wanted}\n{pins}".encode()).hexdigest()[:12]


if __name__ == "__main__":
    first, *rest = sys.argv[1:]
    if first == "--digest":
        print(digest((rest or ["dev,inference,quality"])[0].split(",")))
    else:
        print("\n".join(requirements(first.split(","))))
