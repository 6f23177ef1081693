"""Verdicts, and how those of several gates become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelrollout.api.conditions import MESSAGE_LIMIT
from modelrollout.api.status import GateStatus

__all__ = ["Finding", "GateResult", "Verdict", "combine"]


class Verdict(StrEnum):
    """What the evidence says."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    """Shown to be within the limit."""

    FAIL = "Fail"
    """Shown to be beyond the limit."""

    INCONCLUSIVE = "Inconclusive"
    """Neither yet: more evidence is needed."""

    INVALID = "Invalid"
    """There is no evidence that could be judged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a kind of gate finds in the evidence, in words for people."""

    verdict: Verdict
    reason: str
    """CamelCase word: why the verdict is what it is."""

    message: str
    limit: str
    n: int | None = None
    """Requests, or prompts, that were judged."""

    estimate: str | None = None
    interval: str | None = None
    needed: int | None = None
    """Further requests until Pass if all are good; None where that is not known."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict of one gate and what it rests on, in words for people."""

    name: str
    verdict: Verdict
    reason: str
    """CamelCase word: why the verdict is what it is."""

    n: int | None
    """Requests, or prompts, that were judged."""

    estimate: str | None
    interval: str | None
    limit: str
    needed: int | None
    """Further requests until Pass if all are good; None where that is not known."""

    message: str
    enforced: bool
    """Whether the gate decides; one that does not is only reported."""

    @classmethod
    def of(cls, name: str, finding: Finding, *, enforced: bool) -> GateResult:
        """Return a finding as the result of a named gate."""
        return cls(
            name=name,
            verdict=finding.verdict,
            reason=finding.reason,
            n=finding.n,
            estimate=finding.estimate,
            interval=finding.interval,
            limit=finding.limit,
            needed=finding.needed,
            message=finding.message,
            enforced=enforced,
        )

    def to_status(self) -> GateStatus:
        """Return the form shown in the status of the rollout."""
        message = self.message if self.enforced else f"only observed: {self.message}"
        if len(message) > MESSAGE_LIMIT:
            message = message[: MESSAGE_LIMIT - 2] + " …"
        return GateStatus(
            name=self.name,
            verdict=self.verdict.value,
            requests=self.n,
            estimate=self.estimate,
            interval=self.interval,
            limit=self.limit,
            message=message,
        )


def combine(results: Sequence[GateResult]) -> Verdict:
    """Return the verdict over all enforced gates.

    One Fail is enough to fail. A Pass takes a Pass of every one, and at least one. Otherwise the
    verdict is Invalid when a gate has nothing to judge, and Inconclusive when all can be judged.
    """
    verdicts = {result.verdict for result in results if result.enforced}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if not verdicts or Verdict.INVALID in verdicts:
        return Verdict.INVALID
    if verdicts == {Verdict.PASS}:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE
