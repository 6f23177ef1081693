"""Requests that come together: how much less they say than independent ones.

Slow requests come in bursts and times depend on the queue, so that a request tells in part what
the one before it told. The evidence is cut into blocks of consecutive requests. If requests are
independent, blocks vary as much as the requests in them make expected; if blocks vary more, so do
all counts and means, and by that factor (the design effect of Kish) requests count for less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from modelrollout.api.block_status import BlockEnd, BlocksStatus, ClassSums, DispersionStatus
from modelrollout.gates import special
from modelrollout.gates.evidence import Comparison
from modelrollout.gates.moments import LogMoments
from modelrollout.gates.sequential.stopping_line import LEAST_VARIANCE
from modelrollout.gates.totals import Totals

__all__ = ["BLOCK_REQUESTS", "COST", "ERRORS", "LOG_SECONDS", "Blocks", "Dispersion", "latency_key"]

BLOCK_REQUESTS: Final = 10
"""Requests of the candidate in a block: longer than most bursts, and still 30 in 300 requests."""

ERRORS: Final = "errors"
COST: Final = "cost"
LOG_SECONDS: Final = "log_seconds"
"""Keys of `design_effects`, beside those of `latency_key`."""

_FEWEST_BLOCKS: Final = 3
_USUAL: Final = 0.975
"""Level at which Student's quantile is set beside the normal one: that of 5 % on two sides."""

_CHANCE: Final = 0.05
"""Probability that blocks of independent requests are taken for dependent ones at a look. Below
it nothing is corrected: an estimate of about 1 that is cut off at 1 would cost every trial a tenth
of its requests."""


def latency_key(edge_milliseconds: int) -> str:
    """Return the key of the requests that took longer than an edge."""
    return f"latency:{edge_milliseconds}"


@dataclass(frozen=True, slots=True)
class Dispersion:
    """How much a mean varies between blocks: a one-way analysis of variance, in four sums."""

    blocks: int = 0
    weight: float = 0.0
    """Sum of the weights of the blocks: the inverse variances, for single requests of variance 1.
    For a share it is their requests."""

    total: float = 0.0
    """Sum of the blocks' means times their weights."""

    squares: float = 0.0
    """Sum of the blocks' squared means times their weights."""

    def add(self, weight: float, total: float) -> Dispersion:
        """Return the dispersion with one block more, which has the mean ``total / weight``."""
        if weight <= 0:
            return self
        return Dispersion(
            self.blocks + 1,
            self.weight + weight,
            self.total + total,
            self.squares + total**2 / weight,
        )

    def design_effect(self, variance: float) -> float:
        """Return how many times more the blocks vary than those of independent requests.

        Parameters
        ----------
        variance
            Of a single request.

        Returns
        -------
        float
            The ratio of variances between and within blocks when it is beyond chance, else 1. A
            few blocks know it badly: it grows as Student's quantile stands above the normal one.
        """
        if self.blocks < _FEWEST_BLOCKS or not variance > 0:
            return 1.0
        between = max(0.0, self.squares - self.total**2 / self.weight) / variance
        freedom = self.blocks - 1
        if between <= float(special.chdtri(freedom, _CHANCE)):
            return 1.0
        few = float(special.stdtrit(freedom, _USUAL) / special.ndtri(_USUAL))
        return max(1.0, between / freedom * few**2)


@dataclass(frozen=True, slots=True)
class Sums:
    """What has been measured since the warm-up ended."""

    total: float = 0.0
    """Bad requests, or busy GPU-seconds."""

    weight: float = 0.0
    """What the total is divided by: requests, or delivered images."""

    requests: int = 0


@dataclass(frozen=True, slots=True)
class Blocks:
    """The finished blocks of an attempt, and where the running ones began."""

    dispersions: Mapping[str, Dispersion] = field(default_factory=dict)
    ends: Mapping[str, Sums] = field(default_factory=dict)
    """What had been measured at the end of the latest block, by key."""

    classes: Mapping[str, tuple[LogMoments, LogMoments]] = field(default_factory=dict)
    """Log moments (without squares) of candidate and stable at the end of the latest block."""

    def add(self, measured: Totals, comparison: Comparison | None, edges: Iterable[int]) -> Blocks:
        """Return the blocks with those that are full by now.

        Parameters
        ----------
        measured
            What happened at the candidate since its warm-up ended.
        comparison
            Both arms since the same moment; None while there is none, which begins it anew.
        edges
            Limits of latency gates, in milliseconds.
        """
        dispersions, ends = dict(self.dispersions), dict(self.ends)
        for key, now in _sums(measured, edges).items():
            before = ends.get(key, Sums())
            if now.requests - before.requests >= BLOCK_REQUESTS and now.total >= before.total:
                known = dispersions.get(key, Dispersion())
                dispersions[key] = known.add(now.weight - before.weight, now.total - before.total)
                ends[key] = now
        if comparison is None:
            dispersions.pop(LOG_SECONDS, None)
            return Blocks(dispersions, ends)
        classes = {
            name: (_kept(moments), _kept(comparison.stable.log_moments[name]))
            for name, moments in comparison.candidate.log_moments.items()
            if name in comparison.stable.log_moments
        }
        if _began_anew(self.classes, classes):
            dispersions.pop(LOG_SECONDS, None)
            return Blocks(dispersions, ends, classes)
        if _requests(classes) - _requests(self.classes) < BLOCK_REQUESTS:
            return Blocks(dispersions, ends, self.classes)
        known = dispersions.get(LOG_SECONDS, Dispersion())
        dispersions[LOG_SECONDS] = known.add(*_contrast(self.classes, classes))
        return Blocks(dispersions, ends, classes)

    def design_effects(
        self, measured: Totals, comparison: Comparison | None, edges: Iterable[int]
    ) -> dict[str, float]:
        """Return the design effect of each gate's evidence, by key."""
        effects = {}
        for key, sums in _sums(measured, edges).items():
            share = sums.total / sums.weight if sums.weight else 0.0
            variance = _image_variance(measured) if key == COST else share * (1 - share)
            effects[key] = self.dispersions.get(key, Dispersion()).design_effect(variance)
        if comparison is not None:
            dispersion = self.dispersions.get(LOG_SECONDS, Dispersion())
            effects[LOG_SECONDS] = dispersion.design_effect(_variance(comparison))
        return effects

    def to_status(self) -> BlocksStatus:
        """Return the form kept in status."""
        return BlocksStatus(
            dispersions=[
                DispersionStatus(
                    key=key,
                    blocks=item.blocks,
                    weight=repr(item.weight),
                    total=repr(item.total),
                    squares=repr(item.squares),
                )
                for key, item in sorted(self.dispersions.items())
            ],
            ends=[
                BlockEnd(
                    key=key,
                    total=repr(sums.total),
                    weight=repr(sums.weight),
                    requests=sums.requests,
                )
                for key, sums in sorted(self.ends.items())
            ],
            classes=[
                ClassSums(
                    request_class=name,
                    candidate_count=candidate.count,
                    candidate_total=repr(candidate.total),
                    stable_count=stable.count,
                    stable_total=repr(stable.total),
                )
                for name, (candidate, stable) in sorted(self.classes.items())
            ],
        )

    @classmethod
    def from_status(cls, status: BlocksStatus) -> Blocks:
        """Return the blocks that were kept in status.

        Raises
        ------
        ValueError
            When a number in it is not one.
        """
        return cls(
            dispersions={
                item.key: Dispersion(
                    item.blocks, float(item.weight), float(item.total), float(item.squares)
                )
                for item in status.dispersions
            },
            ends={
                item.key: Sums(float(item.total), float(item.weight), item.requests)
                for item in status.ends
            },
            classes={
                item.request_class: (
                    LogMoments(item.candidate_count, float(item.candidate_total)),
                    LogMoments(item.stable_count, float(item.stable_total)),
                )
                for item in status.classes
            },
        )


def _sums(measured: Totals, edges: Iterable[int]) -> dict[str, Sums]:
    """Return what is measured by key, as the gates count it."""
    requests = measured.succeeded + measured.failed
    sums = {
        ERRORS: Sums(measured.failed, requests, requests),
        COST: Sums(measured.busy_seconds, measured.images, requests),
    }
    for edge in edges:
        within = measured.within.get(edge)
        if within is not None:
            timed = measured.timed + measured.failed
            sums[latency_key(edge)] = Sums(timed - within, timed, timed)
    return sums


def _image_variance(measured: Totals) -> float:
    """Return the variance of busy seconds per image that the spread of single requests explains.

    What it does not explain (images per request, attempts that failed) shows between blocks.
    """
    n, total = measured.measured, measured.gpu_seconds
    if not n or not measured.images:
        return 0.0
    mean = total / n
    variance = max(measured.gpu_seconds_squares / n - mean**2, LEAST_VARIANCE * mean**2)
    return variance * n / measured.images


def _kept(moments: LogMoments) -> LogMoments:
    """Return what a difference of means takes; the squares need not be kept."""
    return LogMoments(moments.count, moments.total)


def _requests(classes: Mapping[str, tuple[LogMoments, LogMoments]]) -> int:
    return sum(candidate.count for candidate, _ in classes.values())


def _began_anew(
    before: Mapping[str, tuple[LogMoments, LogMoments]],
    now: Mapping[str, tuple[LogMoments, LogMoments]],
) -> bool:
    """Tell whether the counts are not those of before, grown: another comparison's."""
    nothing = (LogMoments(), LogMoments())
    return any(
        arm.count < start.count
        for name, arms in before.items()
        for arm, start in zip(now.get(name, nothing), arms, strict=True)
    )


def _contrast(
    before: Mapping[str, tuple[LogMoments, LogMoments]],
    now: Mapping[str, tuple[LogMoments, LogMoments]],
) -> tuple[float, float]:
    """Return weight and weighted difference of the arms in a block, over its classes."""
    weight = total = 0.0
    for name, arms in now.items():
        began = before.get(name, (LogMoments(), LogMoments()))
        counts = [arm.count - start.count for arm, start in zip(arms, began, strict=True)]
        if min(counts) < 1:
            continue
        means = [
            (arm.total - start.total) / count
            for arm, start, count in zip(arms, began, counts, strict=True)
        ]
        share = counts[0] * counts[1] / (counts[0] + counts[1])
        weight += share
        total += share * (means[0] - means[1])
    return weight, total


def _variance(comparison: Comparison) -> float:
    """Return the variance of a log time within its class and arm."""
    moments = [
        item
        for arm in (comparison.candidate, comparison.stable)
        for item in arm.log_moments.values()
    ]
    freedom = sum(max(0, item.count - 1) for item in moments)
    return sum(item.squared_deviations for item in moments) / freedom if freedom else 0.0
