"""Running programs, waiting for things with a deadline, and knowing a process again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from tests.cluster.errors import ClusterError, CommandError

T = TypeVar("T")


def run(
    argv: Sequence[str | Path],
    *,
    given: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return its standard output.

    Parameters
    ----------
    argv
        The command.
    given
        Text for its standard input; none by default.
    env
        Variables set in addition to our own.
    cwd
        Folder to run in.
    timeout
        Seconds it may take.

    Raises
    ------
    CommandError
        It ended with an error, or not in time.
    """
    command = [str(part) for part in argv]
    environment = {**os.environ, **env} if env else None
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            env=environment,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise CommandError(command, -1, f"not done within {timeout} s") from expired
    except FileNotFoundError as missing:
        raise ClusterError(f"{command[0]} is not on this machine.") from missing
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def wait_for(
    attempt: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    every: float = 0.1,
    why: Callable[[], str] = str,
) -> T:
    """Call until the answer is true, and return it.

    Parameters
    ----------
    attempt
        Returns something true when the wait is over; an `OSError` or `CommandError` counts as no.
    what
        What is waited for, for the message.
    timeout, every
        Seconds in all, and between two calls.
    why
        Says more about the failure, for the message.

    Raises
    ------
    ClusterError
        It did not happen in time.
    """
    deadline = time.monotonic() + timeout
    last = ""
    while True:
        try:
            if answer := attempt():
                return answer
        except (OSError, CommandError) as error:
            last = str(error)
        if time.monotonic() > deadline:
            more = "\n".join(part for part in (last, why()) if part)
            raise ClusterError(f"{what} did not happen within {timeout:.0f} s. {more}".strip())
        time.sleep(every)


def start_time(pid: int) -> int | None:
    """Return when a process began (clock ticks since boot), or None when there is none.

    With the process id it names a process for good, as ids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # Field 3 of proc(5) is the state; a zombie has ended already. Field 22 is the start time.
    return None if fields[0] in "ZX" else int(fields[19])


def is_running(pid: int, started: int) -> bool:
    """Tell whether the very process is there still."""
    return start_time(pid) == started


def end(pid: int, started: int, *, timeout: float = 20) -> None:
    """Kill a process if it is the one that is meant, and wait until it is gone.

    Raises
    ------
    ClusterError
        It did not end in time.
    """
    if not is_running(pid, started):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

    def gone() -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return not is_running(pid, started)

    wait_for(gone, what=f"The end of process {pid}", timeout=timeout, every=0.02)


@contextlib.contextmanager
def locked(path: Path, *, busy: str) -> Iterator[None]:
    """Hold a lock on a file for the block.

    Raises
    ------
    ClusterError
        With the text ``busy``: somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not try_lock(file):
            raise ClusterError(busy)
        yield


def try_lock(file: IO[str]) -> bool:
    """Take the lock of an open file for as long as it stays open anywhere; False when taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    return True
