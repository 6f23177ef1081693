"""Running the command line as somebody who is not root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.paths import REPOSITORY, links_folder

_NOBODY = 65534


def run_as_nobody(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.cluster`` without root, with a cache of its own.

    When we are root it becomes nobody, who may read what root may: the checkout and Python's
    environment can be anywhere. When we are not, it stays who we are.
    """
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    if os.geteuid() == 0:
        os.chown(cache, _NOBODY, _NOBODY)
        only = "-all,+dac_read_search"
        privileges = (f"--{kind}={only}" for kind in ("inh-caps", "ambient-caps", "bounding-set"))
        who = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        command = ["setpriv", *who, *privileges, *command]
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "HOME": str(cache),
        "KUBEBUILDER_ASSETS": str(links_folder()),
    }
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
