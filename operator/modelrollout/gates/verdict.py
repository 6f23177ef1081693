"""Verdicts, and how those of several gates become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelrollout.api.conditions import MESSAGE_LIMIT
from modelrollout.api.status import GateStatus

__all__ = ["Finding", "GateResult", "Unmeasured", "Verdict", "all_of", "combine", "unknown"]


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
class Unmeasured:
    """Why there is nothing to judge."""

    verdict: Verdict
    reason: str
    message: str

    def finding(self, limit: str) -> Finding:
        """Return it as what a gate finds."""
        return Finding(self.verdict, self.reason, self.message, limit)


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
            reason=self.reason,
            requests=self.n,
            needed=self.needed,
            estimate=self.estimate,
            interval=self.interval,
            limit=self.limit,
            message=message,
        )


def all_of(findings: Sequence[Finding]) -> Finding:
    """Return what a gate finds that sets several limits, all of which must be kept.

    One exceeded limit is enough to fail, and only those are told. A Pass takes a Pass of each.
    """
    if len(findings) == 1:
        return findings[0]
    order = (Verdict.FAIL, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS)
    verdict = min((finding.verdict for finding in findings), key=order.index)
    decisive = [finding for finding in findings if finding.verdict is verdict]
    told = decisive if verdict is Verdict.FAIL else findings
    return Finding(
        verdict,
        decisive[0].reason,
        "; ".join(finding.message for finding in told),
        " and ".join(finding.limit for finding in findings),
        n=decisive[0].n,
        estimate=_listed([finding.estimate for finding in findings]),
        interval=_listed([finding.interval for finding in findings]),
        needed=None if verdict is Verdict.FAIL else _needed(findings),
    )


def unknown() -> Finding:
    """Return what a gate finds that this version does not know, in kind or in form.

    An older operator reads a newer custom resource: what it does not know it cannot pass.
    """
    return Finding(
        Verdict.INVALID,
        "UnknownGateKind",
        "this operator does not know this kind of gate: update the operator",
        limit="",
    )


def _listed(words: Sequence[str | None]) -> str | None:
    known = [word for word in words if word is not None]
    return ", ".join(known) if known else None


def _needed(findings: Sequence[Finding]) -> int | None:
    """Return how many more requests it takes until the last of the limits is shown to be kept."""
    numbers = [0 if item.verdict is Verdict.PASS else item.needed for item in findings]
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None


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
