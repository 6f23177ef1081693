"""The acts: each applies a file that users could apply, waits for the end and checks it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from examples.demo.ground import Ground
from examples.demo.narrator import Narrator
from examples.demo.service import NAME, Ending, Service, Unexpected
from examples.demo.watch import Kill, LineWatch, PodWatch
from tests.cluster.progress import duration

__all__ = ["tell"]

_FILES: Final = Path(__file__).parent
_REFUSED: Final = "3-incident-refused.yaml"
_RETRIES: Final = 2
_BUSY: Final = frozenset({"GateFailed", "Inconclusive"})


@dataclass(frozen=True)
class Act:
    """One rollout, and how it must end.

    Attributes
    ----------
    file, title, text
        The example, the heading, and what is told before.
    outcome, reason
        As ``status.history`` must say.
    gate
        The gate whose verdict must be Fail; empty for none.
    """

    file: str
    title: str
    text: str
    outcome: str
    reason: str
    gate: str = ""


FIRST: Final = Act(
    "1-first.yaml",
    "0. The first revision",
    "A tiny diffusion model is put into service: 64x64 pictures in 4 steps. There is nothing to "
    "compare it with yet, so it serves as soon as it is ready.",
    "Promoted",
    "FirstRevision",
)
GOOD: Final = Act(
    "2-good.yaml",
    "a. A good candidate",
    "Other weights, the same settings. The candidate gets a pod of its own and no users. A probe "
    "asks it for the same pictures several times, then sends load to it and to stable, the same "
    "prompts and seeds to both, and Prometheus counts. It takes over when every gate has passed.",
    "Promoted",
    "Promoted",
)
INCIDENT: Final = Act(
    "3a-incident.yaml",
    "b. The incident, with a scheduler that exists",
    "30 steps instead of 4, guidance 12, full precision, batches of 8, caps that cap nothing: "
    "one line of configuration, and the pictures look great.",
    "RolledBack",
    "GateFailed",
    "latency-p90",
)
RELAXED: Final = Act(
    "3b-incident-relaxed.yaml",
    "b. The same, with the latency gate relaxed",
    "Somebody raises the latency limit from 1.5 s to 60 s to get it through. Other gates mean "
    "another attempt; the gate on cost is still there.",
    "RolledBack",
    "GateFailed",
    "cost",
)
MEMORY: Final = Act(
    "4-out-of-memory.yaml",
    "c. More memory than there is",
    "Pictures of 1024x1024 in batches of 8, with a memory limit of 1500Mi. The kernel kills the "
    "container while it warms up.",
    "RolledBack",
    "ContainerOutOfMemory",
)


def tell(ground: Ground, narrator: Narrator) -> None:
    """Tell the whole story.

    Raises
    ------
    Unexpected
        A step ended other than it must.
    """
    service = Service(ground)
    rows: list[tuple[str, str, str, str, str]] = []
    with LineWatch(ground.cluster, ground.namespace, narrator.watched):
        rows.append(_row(_play(FIRST, service, narrator)))
        _ask_for_a_picture(service, narrator)
        rows.extend(_row(ending) for ending in _promotion(service, narrator))
        _ask_for_a_picture(service, narrator)
        rows.append(_refused(service, narrator))
        rows.extend(_row(_play(act, service, narrator)) for act in (INCIDENT, RELAXED))
        with PodWatch(ground.cluster, ground.namespace, NAME) as pods:
            ending = _play(MEMORY, service, narrator)
            _tell_of_the_kill(pods, service, narrator)
        rows.append(_row(ending))
        _ask_for_a_picture(service, narrator)
    narrator.summary(rows)


def _play(act: Act, service: Service, narrator: Narrator) -> Ending:
    before = {} if act is FIRST else service.status()
    ending = _begin(act, service, narrator)
    _check(act, ending, before, service)
    return ending


def _begin(act: Act, service: Service, narrator: Narrator) -> Ending:
    before = {} if act is FIRST else service.status()
    narrator.act(act.title, act.text)
    _show_command(act.file, service, narrator)
    file, began = _FILES / act.file, time.monotonic()
    narrator.output(service.apply(file).rstrip())
    ending = service.until_ended(file, before.get("attempts", 0) + 1, began)
    _tell_ending(ending, narrator)
    return ending


def _tell_ending(ending: Ending, narrator: Narrator) -> None:
    time.sleep(1)  # the watch shows the last line a moment after the status is there
    narrator.ending(ending)


def _promotion(service: Service, narrator: Narrator) -> list[Ending]:
    """Play the good candidate; a machine that stood still meanwhile gets another chance, said so.

    Latency and cost are wall-clock time, and without a GPU they depend on who else computes here.
    """
    endings = [_begin(GOOD, service, narrator)]
    while endings[-1].record["reason"] in _BUSY and len(endings) <= _RETRIES:
        record = endings[-1].record
        narrator.say(
            "This candidate is as fast as stable, so the machine was too busy with other things "
            f"(load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores). A rejected "
            "revision is not tried again by itself, but on purpose:"
        )
        retry = f"modelrollout.dev/retry={record['revision']}"
        command = ("annotate", "mro", NAME, "-n", service.namespace, "--overwrite", retry)
        narrator.command("kubectl", *command)
        began = time.monotonic()
        narrator.output(service.cluster.kubectl(*command).rstrip())
        endings.append(service.until_ended(_FILES / GOOD.file, record["attempt"] + 1, began))
        _tell_ending(endings[-1], narrator)
    _check(GOOD, endings[-1], {}, service)
    return endings


def _show_command(file: str, service: Service, narrator: Narrator) -> None:
    narrator.command("kubectl", "apply", "-n", service.namespace, "-f", f"examples/demo/{file}")


def _check(act: Act, ending: Ending, before: dict[str, dict[str, str]], service: Service) -> None:
    record, status = ending.record, ending.status
    seen = (record["outcome"], record["reason"])
    if seen != (act.outcome, act.reason):
        raise Unexpected(
            service,
            f"{act.file} should have ended as {act.outcome} ({act.reason}), and ended as "
            f"{seen[0]} ({seen[1]}): {record['message']}",
        )
    failed = [gate["name"] for gate in status.get("gates", []) if gate["verdict"] == "Fail"]
    if act.gate and act.gate not in failed:
        raise Unexpected(
            service, f"{act.file} should have failed on the gate {act.gate}, and failed on {failed}"
        )
    stable = status["stable"]["revision"]
    if act.outcome == "RolledBack" and stable != before["stable"]["revision"]:
        raise Unexpected(service, f"stable is now {stable}, and should not have changed")
    if act.outcome == "Promoted" and stable != record["revision"]:
        raise Unexpected(service, f"stable is {stable}, and should be {record['revision']}")


def _refused(service: Service, narrator: Narrator) -> tuple[str, str, str, str, str]:
    narrator.act(
        "b. The incident, as it was written",
        "Its scheduler, `fast_ema`, does not exist. Nothing is started: the API server refuses the "
        "file by the schema, and names the field.",
    )
    _show_command(_REFUSED, service, narrator)
    before = service.read()["metadata"]["generation"]
    began = time.monotonic()
    said = service.refusal(_FILES / _REFUSED)
    took = time.monotonic() - began
    narrator.output(said)
    narrator.say("=> refused; the service goes on as it was")
    if "fast_ema" not in said:
        raise Unexpected(service, "the refusal should have named the scheduler fast_ema")
    if service.read()["metadata"]["generation"] != before:
        raise Unexpected(service, "a refused file changed the rollout")
    return (_REFUSED, "refused", "schema", duration(took), "")


def _ask_for_a_picture(service: Service, narrator: Narrator) -> None:
    picture = service.picture()
    stable = service.status()["stable"]["revision"]
    narrator.point(
        f"a user asks for a picture: {picture.size}, by revision {stable}, "
        f"in {duration(picture.seconds)}"
    )


def _tell_of_the_kill(pods: PodWatch, service: Service, narrator: Narrator) -> None:
    kill = _await(lambda: next((k for k in pods.kills.values() if k.out), None))
    if kill is None or kill.out is None:
        raise Unexpected(service, f"no OOMKilled pod was seen to go: {list(pods.kills.values())}")
    killed = datetime.fromisoformat(kill.finished)
    narrator.point(f"kernel's kill, by the pod's status  {killed:%H:%M:%S} (whole seconds)")
    narrator.point(f"OOMKilled seen by kubectl           {kill.seen:%H:%M:%S.%f}"[:-3])
    narrator.point(f"candidate's pod on its way out      {kill.out:%H:%M:%S.%f}"[:-3])
    whole = max(0.0, (kill.out - killed).total_seconds())
    after = max(0.0, (kill.out - kill.seen).total_seconds())
    narrator.point(
        f"from the kill to candidate out: at most {whole:.1f} s, "
        f"of which {after:.2f} s after the pod's status said so"
    )


def _await(look: Callable[[], Kill | None], seconds: float = 5) -> Kill | None:
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _row(ending: Ending) -> tuple[str, str, str, str, str]:
    record = ending.record
    took = ending.took_milliseconds
    reason = record["reason"]
    if reason == "GateFailed":
        reason = f"{reason}: {record['message'].partition(':')[0]}"
    return (
        ending.file,
        record["outcome"],
        reason,
        duration(ending.seconds),
        "" if took is None else f"{took} ms",
    )
