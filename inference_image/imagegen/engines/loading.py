"""From settings to a loaded engine."""

from __future__ import annotations

from imagegen.engines.base import Engine
from imagegen.engines.folder import check_folder
from imagegen.engines.settings import Demand, EngineSettings, HostedSettings, SyntheticSettings

__all__ = ["load_engine"]


def load_engine(settings: EngineSettings, demand: Demand) -> Engine:
    """Load an engine; what it needs is imported only when its settings are in order.

    Raises
    ------
    StartupError
        If the model is unsafe or incomplete, does not fit the demand, or memory ran out.
    """
    if isinstance(settings, SyntheticSettings):
        from imagegen.engines.synthetic.engine import SyntheticEngine  # noqa: PLC0415

        return SyntheticEngine(settings.rates)
    if isinstance(settings, HostedSettings):
        from imagegen.engines.hosted.engine import HostedEngine  # noqa: PLC0415

        return HostedEngine(settings)
    folder = check_folder(settings.model, digest=settings.digest)
    from imagegen.engines.diffusers.loading import load_diffusers  # noqa: PLC0415 - seconds

    return load_diffusers(folder, settings, demand)
