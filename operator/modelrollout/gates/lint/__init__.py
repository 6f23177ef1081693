"""What declared gates ask for, told before a trial: requests, time, and what stable would do."""

from modelrollout.gates.lint.report import GateLint, Lint, lint, usable

__all__ = ["GateLint", "Lint", "lint", "usable"]
