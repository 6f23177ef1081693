"""kubectl's watches, in threads: lines that people see, moments at which pods changed."""

from __future__ import annotations

import re
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from tests.cluster.handle import Cluster

__all__ = ["Kill", "LineWatch", "PodWatch"]

_AGE = re.compile(r"\s+(<unknown>|<invalid>|(\d+[dhms])+)\s*$")
_POD = (
    "jsonpath={.metadata.name}|{.metadata.deletionTimestamp}"
    "|{.status.containerStatuses[*].state.terminated.reason}"
    "{.status.containerStatuses[*].lastState.terminated.reason}"
    "|{.status.containerStatuses[*].state.terminated.finishedAt}"
    "{.status.containerStatuses[*].lastState.terminated.finishedAt}{'\\n'}"
)


class _Watch(ABC):
    """A kubectl that is read line by line until the block ends."""

    def __init__(self, cluster: Cluster, *arguments: str) -> None:
        self._command = [*cluster.kubectl_command(), *arguments, "--watch"]
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - kubectl, with our own arguments
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._thread.join(5)

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            self._take(line.rstrip("\n"))

    @abstractmethod
    def _take(self, line: str) -> None:
        """Make something of a line."""


class LineWatch(_Watch):
    """``kubectl get mro --watch``; a line that differs from the last in its age only is left out.

    Parameters
    ----------
    cluster, namespace
        Where.
    show
        Called with each line.
    """

    def __init__(self, cluster: Cluster, namespace: str, show: Callable[[str], None]) -> None:
        super().__init__(cluster, "get", "mro", "-n", namespace)
        self._show = show
        self._last: list[str] = []

    def _take(self, line: str) -> None:
        cells = _AGE.sub("", line).split()
        if cells != self._last:
            self._last = cells
            self._show(line.rstrip())


@dataclass
class Kill:
    """A container that the kernel killed for its memory.

    Attributes
    ----------
    pod
        Its pod.
    finished
        When the container ended, by the pod's status (RFC 3339, whole seconds).
    seen
        When the status that says so arrived here.
    out
        When the pod was seen to be on its way out; None while it is not.
    """

    pod: str
    finished: str
    seen: datetime
    out: datetime | None = None


class PodWatch(_Watch):
    """Notes when the server pods of a rollout are killed and taken out.

    Parameters
    ----------
    cluster, namespace
        Where.
    rollout
        Name of the ModelRollout.
    """

    def __init__(self, cluster: Cluster, namespace: str, rollout: str) -> None:
        labels = f"modelrollout.dev/rollout={rollout},modelrollout.dev/component=server"
        super().__init__(cluster, "get", "pods", "-n", namespace, "-l", labels, "-o", _POD)
        self.kills: dict[str, Kill] = {}

    def _take(self, line: str) -> None:
        now = datetime.now(UTC)
        name, deleted, reasons, finished = (*line.split("|"), "", "", "")[:4]
        if "OOMKilled" in reasons and name not in self.kills:
            self.kills[name] = Kill(name, finished[:20], now)
        kill = self.kills.get(name)
        if kill is not None and deleted and kill.out is None:
            kill.out = now
