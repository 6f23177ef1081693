"""Somebody's own cluster instead of one of ours, for tests and the demo; guarded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.binaries import find
from tests.cluster.errors import ClusterError, CommandError
from tests.cluster.handle import Cluster, Mode
from tests.cluster.processes import run

USE = "USE_EXISTING_CLUSTER"
CONTEXT = "MODELROLLOUT_TEST_CONTEXT"
_YES = frozenset({"1", "true", "yes"})


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the user asks for an existing cluster."""
    return environment.get(USE, "").lower() in _YES


def existing_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster of the current kubeconfig's context, if it is named on purpose.

    Raises
    ------
    ClusterError
        There is no current context, or it is not the one that ``MODELROLLOUT_TEST_CONTEXT`` names.
    """
    try:
        kubectl = find("kubectl") or Path("kubectl")
        current = run([kubectl, "config", "current-context"], env=environment).strip()
    except CommandError as error:
        raise ClusterError(
            f"{USE} is set, but kubectl knows no current context: {error.output.strip()}. "
            "Choose one with `kubectl config use-context`."
        ) from error
    named = environment.get(CONTEXT, "")
    if named != current:
        said = f"it is {named!r}" if named else "it is not set"
        raise ClusterError(
            f"{USE} is set and the current context is {current!r}. Tests and demo create and "
            f"delete things there, so it must be named on purpose: {CONTEXT} must be "
            f"{current!r}, and {said}."
        )
    return Cluster(current, Mode.EXISTING, _kubeconfig(environment))


def _kubeconfig(environment: Mapping[str, str]) -> Path:
    """Return a file with the current context; of several in ``KUBECONFIG``, the first there is."""
    given = environment.get("KUBECONFIG", "")
    files = [Path(part).absolute() for part in given.split(os.pathsep) if part]
    default = Path(environment.get("HOME", "/")) / ".kube" / "config"
    return next((file for file in files if file.exists()), default)
