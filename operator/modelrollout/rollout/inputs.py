"""Everything a decision rests on. Same inputs, same decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from modelrollout.api.revision import RevisionContent, criteria_digest, revision_hash
from modelrollout.api.spec import Spec
from modelrollout.api.status import Status
from modelrollout.gates.evidence import Snapshot
from modelrollout.rollout.world import World

__all__ = ["Catalogue", "Commands", "Inputs", "MetricsFailure"]


@dataclass(frozen=True, slots=True)
class MetricsFailure:
    """Prometheus did not answer usefully."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the administrator offers: prices of pools and names of runtimes."""

    gpu_hour_prices: Mapping[str, Decimal]
    runtimes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Commands:
    """Revisions that people named in the command annotations; empty when there is none."""

    abort: str = ""
    retry: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One look at a rollout."""

    namespace: str
    name: str
    generation: int
    spec: Spec
    status: Status
    world: World
    metrics: Snapshot | MetricsFailure | None
    """``None`` when nothing was asked, because no evidence is needed now."""

    catalogue: Catalogue
    now: datetime
    scrape_interval: timedelta = timedelta()
    """Time between two samples of a series in Prometheus."""

    commands: Commands = field(default_factory=Commands)

    @property
    def desired_revision(self) -> str:
        """Name of the revision that the spec declares."""
        return revision_hash(RevisionContent.of(self.spec))

    @property
    def criteria(self) -> str:
        """Digest of what a candidate is judged by."""
        return criteria_digest(self.spec)
