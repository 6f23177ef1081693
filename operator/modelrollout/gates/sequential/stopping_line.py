"""One stopping line for an estimate that gets more precise: Lévy's inequality in score form.

Let an estimate ``d`` of a log ratio have the variance ``1 / I``; ``I`` is the information so far.
The score ``S(m) = I (d - m)`` behaves like Brownian motion with drift ``delta - m`` in the time
``I``. Of a motion without drift Lévy's inequality says that it ever exceeds a line within a planned
time with at most twice the probability of being above it at the end. So with the line at
``z sqrt(I_max)`` and ``z`` the normal quantile of ``1 - alpha / 2``, looking at all times costs no
more than `alpha` (Kurennoy and others, "YEAST", NeurIPS 2025, for sums; here for scores).

Past the planned information the line goes on in proportion to it. By inversion of time, the
motion then ever crosses that continuation with probability `alpha` at most, too; more evidence
than was planned never makes the interval narrower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from modelrollout.gates import special
from modelrollout.gates.sequential.judgement import Judgement
from modelrollout.gates.verdict import Verdict

__all__ = ["FEWEST_REQUESTS", "LEAST_VARIANCE", "Course", "judge_course"]

FEWEST_REQUESTS: Final = 30
"""Requests of an arm below which a score is not taken to be normal, and spreads not as known."""

LEAST_VARIANCE: Final = 1e-6
"""Of a log time: times closer than a thousandth are equal as far as one can measure, and requests
that took exactly the same time do not carry infinite information."""


@dataclass(frozen=True, slots=True)
class Course:
    """How far an estimate has come."""

    n: int
    """Requests of the candidate so far."""

    log_estimate: float
    information: float
    """Inverse variance of `log_estimate`."""

    planned: float
    """Information at the end of the plan, at least that after `FEWEST_REQUESTS` requests."""

    skew: float = 0.0
    """By what part the interval reaches further upwards, because the amounts are skewed."""

    skew_stable: float = 0.0
    """By what part it reaches further downwards, because stable's are."""

    at_best: float | None = None
    """The information, if the candidate's amounts varied as little as is believed."""

    n_stable: int | None = None
    """Requests of stable; None when there is no comparison."""

    @property
    def missing(self) -> int:
        """Requests of the candidate without which it is not judged."""
        return max(0, FEWEST_REQUESTS - self.n)

    @property
    def judged(self) -> bool:
        """Whether there are requests enough, of both arms where both are compared."""
        enough_at_stable = self.n_stable is None or self.n_stable >= FEWEST_REQUESTS
        return not self.missing and enough_at_stable


def judge_course(
    course: Course,
    *,
    failing: Course | None = None,
    fail_above: float,
    pass_below: float,
    alpha_fail: float,
    alpha_pass: float,
    subject: str,
) -> Judgement:
    """Judge an estimate against a margin for Fail and one for Pass.

    Parameters
    ----------
    course
        The estimate and its information.
    failing
        Those that Fail is judged by, where they are not the same. Pass is then withheld where they
        would show `fail_above` to be exceeded if the amounts varied less (`Course.at_best`).
    fail_above
        Fail when the ratio (or mean) is shown to be above it.
    pass_below
        Pass when it is shown to be below it.
    alpha_fail, alpha_pass
        Largest probability of ever failing at `fail_above` and of ever passing at `pass_below`.
    subject
        What is estimated, for the message.

    Returns
    -------
    Judgement
        Its estimate, bounds and limit are on the scale of the margins, not on that of logarithms.
    """
    against = failing or course
    low, _ = _interval(against, alpha_fail, alpha_pass)
    if course.judged and low > _log(fail_above):
        return _failed(against, fail_above, alpha_fail, alpha_pass, subject)
    _, high = _interval(course, alpha_fail, alpha_pass)
    low = min(low, course.log_estimate)
    between = f"{_said(course, subject)}, between {_exp(low):.4g} and {_exp(high):.4g}"
    needed: int | None = _needed(course, pass_below, alpha_pass)
    verdict, reason = Verdict.INCONCLUSIVE, "MoreRequestsNeeded"
    if not course.judged:
        arms = "" if course.n_stable is None else f" and {course.n_stable} at stable"
        message = f"{_said(course, subject)}{arms}: not judged below {FEWEST_REQUESTS}"
    elif _close_to_failing(against, fail_above, alpha_fail):
        needed = None
        message = f"{between}: too close to being shown above {fail_above:.4g}"
    elif high < _log(pass_below):
        verdict, reason, needed = Verdict.PASS, "WithinLimit", 0
        message = f"{between}: below {pass_below:.4g}"
    else:
        message = between + (
            "" if needed is None else f"; passes at about {course.n + needed} requests like these"
        )
    return _judgement(verdict, reason, course, (low, high), fail_above, needed, message)


def _close_to_failing(course: Course, fail_above: float, alpha_fail: float) -> bool:
    """Tell whether it could be Fail if the candidate's amounts varied as little as is believed.

    The reach for that is the least of all that larger amounts of the candidate leave possible:
    they change the estimate upwards, and the information and its plan downwards.
    """
    if course.at_best is None:
        return False
    least = _quantile(alpha_fail) * math.sqrt(course.planned) / course.at_best
    return course.log_estimate - least > _log(fail_above)


def _failed(
    course: Course, fail_above: float, alpha_fail: float, alpha_pass: float, subject: str
) -> Judgement:
    low, high = _interval(course, alpha_fail, alpha_pass)
    said = f"{_said(course, subject)}, between {_exp(low):.4g} and {_exp(high):.4g}"
    message = f"{said}: above {fail_above:.4g}"
    reason = "LimitExceeded"
    return _judgement(Verdict.FAIL, reason, course, (low, high), fail_above, None, message)


def _judgement(  # noqa: PLR0917 - in the order of the fields
    verdict: Verdict,
    reason: str,
    course: Course,
    interval: tuple[float, float],
    limit: float,
    needed: int | None,
    message: str,
) -> Judgement:
    """Return a judgement of which the estimate and the bounds are no longer logarithms."""
    low, high = interval
    estimate = _exp(course.log_estimate)
    return Judgement(
        verdict, reason, course.n, estimate, _exp(low), _exp(high), limit, needed, message
    )


def _said(course: Course, subject: str) -> str:
    return f"{subject} {_exp(course.log_estimate):.4g} over {course.n} requests"


def _interval(course: Course, alpha_fail: float, alpha_pass: float) -> tuple[float, float]:
    """Return the bounds of the log estimate: from below at one level, from above at another."""
    low = course.log_estimate - _reach(course, alpha_fail) * (1 + course.skew_stable)
    high = course.log_estimate + _reach(course, alpha_pass) * (1 + course.skew)
    return low, high


def _reach(course: Course, alpha: float) -> float:
    """Return the half-width of the interval for the log estimate."""
    within_plan = min(course.information, course.planned)
    return _quantile(alpha) * math.sqrt(course.planned) / within_plan


def _needed(course: Course, pass_below: float, alpha: float) -> int | None:
    """Return how many more requests pass if estimate, spread and shares of the arms stay."""
    gap = _log(pass_below) - course.log_estimate
    if gap <= 0:
        return None
    information = _quantile(alpha) * math.sqrt(course.planned) * (1 + course.skew) / gap
    if information >= course.planned:
        return None
    if not math.isfinite(information / course.information):
        return None
    passing = math.floor(course.n * information / course.information) + 1
    return max(1, max(FEWEST_REQUESTS, passing) - course.n)


@lru_cache(maxsize=64)
def _quantile(alpha: float) -> float:
    """Return the height of the line for a planned information of 1."""
    return -float(special.ndtri(alpha / 2))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
