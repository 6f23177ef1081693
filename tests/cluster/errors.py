"""The errors of the test cluster: each says what is missing and how to get it."""

from __future__ import annotations


class ClusterError(Exception):
    """Something the cluster needs went wrong; the message is fit to be shown as it is."""


class PreflightError(ClusterError):
    """The machine lacks something; nothing was started.

    Parameters
    ----------
    problems
        One sentence each: what is missing, and how to get it.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"This machine is not ready for the cluster:\n{lines}")


class CommandError(ClusterError):
    """A program ended with an error.

    Parameters
    ----------
    argv
        The command.
    code
        Its exit status.
    output
        What it said; the end of it is shown.
    """

    def __init__(self, argv: list[str], code: int, output: str) -> None:
        self.code = code
        self.output = output
        shown = " ".join(argv)
        if len(shown) > 200:
            shown = shown[:200] + " …"
        super().__init__(f"{shown}\nended with status {code}:\n{output.strip()[-3000:]}")
