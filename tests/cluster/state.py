"""What clusters there are, and how they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cluster.handle import Mode, Record, names
from tests.cluster.paths import ClusterPaths


def describe() -> str:
    """Return a few lines on every cluster that has a state folder."""
    return "\n".join(_cluster(ClusterPaths(name)) for name in names())


def _cluster(paths: ClusterPaths) -> str:
    record = Record.read(paths.record)
    if record is None or not record.alive:
        return f"{paths.name}: left behind by a run that was killed; `up` and `down` remove it"
    condition = "up" if record.complete else "coming up"
    memory = sum(_resident(pid) for pid in process_ids(record)) / 1e6
    lines = [
        f"{paths.name}: {condition}, {record.mode}, {memory:.0f} MB of memory",
        f"  kubeconfig   {paths.kubeconfig}",
        f"  API server   https://127.0.0.1:{record.api_port}",
    ]
    if record.mode is Mode.NODE:
        lines.append(f"  Prometheus   http://127.0.0.1:{record.prometheus_port}")
    lines += [f"  logs         {paths.logs}", f"  programs     {_programs(paths)}"]
    return "\n".join(lines)


def _programs(paths: ClusterPaths) -> str:
    programs = json.loads((paths.root / "programs.json").read_text())["programs"]
    words = []
    for name, state in programs.items():
        again = f" (started {state['starts']} times)" if state["starts"] > 1 else ""
        words.append(f"{name}{again if state['ready'] else ' (not ready)' + again}")
    return ", ".join(words)


def process_ids(record: Record) -> list[int]:
    """Return all processes of a running cluster, as seen from outside."""
    return _descendants(record.pid)


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(found for child in children for found in _descendants(int(child)))]


def _resident(pid: int) -> int:
    """Return a process's resident memory, in bytes."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
