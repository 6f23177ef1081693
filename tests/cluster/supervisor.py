"""The first process of a cluster: prepares its namespaces, starts its programs, keeps them up.

Run as ``python -m tests.cluster.supervisor PLAN``. As the first process of a process namespace it
takes everything with it when it ends; outside one its programs ask the kernel for that.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.plan import Plan, Program

_TICK = 0.05
_BACKOFF = (0.3, 1.0, 3.0)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the supervisor ends, however it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    starts: int = 0
    not_before: float = 0.0
    last_status: int | None = None
    pending_check: float = field(default=0.0)


class Supervisor:
    """Keeps the programs of a plan running.

    Parameters
    ----------
    plan
        What to run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._all = {program.name: _Running(program) for program in plan.programs}
        self._told = ""

    def run(self) -> None:
        """Run for ever."""
        for command in self._plan.setup:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
            if done.returncode != 0:
                _log(f"set-up failed with status {done.returncode}: {' '.join(command)}")
                self._tell(failed=" ".join(command))
                sys.exit(1)
        while True:
            self._reap()
            for running in self._all.values():
                self._start_if_due(running)
                self._look_if_ready(running)
            self._tell()
            time.sleep(_TICK)

    def _reap(self) -> None:
        """Notice our programs' ends, and bury orphans, which are ours as first process."""
        while True:
            try:
                # WNOWAIT leaves our own children to their Popen object.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            owner = next(
                (r for r in self._all.values() if r.process and r.process.pid == ended.si_pid),
                None,
            )
            if owner is None or owner.process is None:
                os.waitpid(ended.si_pid, 0)
                continue
            owner.last_status = owner.process.wait()
            owner.process, owner.ready = None, False
            pause = _BACKOFF[min(owner.starts, len(_BACKOFF)) - 1]
            owner.not_before = time.monotonic() + pause
            _log(f"{owner.program.name} ended with status {owner.last_status}")

    def _start_if_due(self, running: _Running) -> None:
        program = running.program
        if running.process or time.monotonic() < running.not_before:
            return
        if not all(self._all[name].ready for name in program.after):
            return
        with Path(self._plan.logs, f"{program.name}.log").open("ab") as log:
            running.process = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.env},
                close_fds=False,  # the relay listens on sockets that were opened outside
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        running.starts += 1

    def _look_if_ready(self, running: _Running) -> None:
        if running.process is None or running.ready or time.monotonic() < running.pending_check:
            return
        running.pending_check = time.monotonic() + 2 * _TICK
        running.ready = _is_ready(running.program)

    def _tell(self, failed: str = "") -> None:
        programs = {
            name: {
                "pid": running.process.pid if running.process else None,
                "ready": running.ready,
                "starts": running.starts,
                "last_status": running.last_status,
            }
            for name, running in self._all.items()
        }
        text = json.dumps({"programs": programs, "failed": failed})
        if text != self._told:
            state = Path(self._plan.state)
            fresh = state.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(state)
            self._told = text


def _is_ready(program: Program) -> bool:
    if program.ready_path and not Path(program.ready_path).exists():
        return False
    if not program.ready_url:
        return True
    context = ssl.create_default_context(cafile=program.ca or None)
    try:
        with urllib.request.urlopen(program.ready_url, timeout=1, context=context) as answer:  # noqa: S310 - from our own plan
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    Supervisor(Plan.read(Path(sys.argv[1]))).run()
