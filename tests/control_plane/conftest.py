"""The CRD on a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.handle import Cluster

CRD = Path(__file__).parents[2] / "crds" / "modelrollouts.modelrollout.dev.yaml"


@pytest.fixture(scope="session", autouse=True)
def _crd(control_plane: Cluster) -> None:
    control_plane.kubectl("apply", "--server-side", "-f", str(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(CRD), "--timeout=30s")
