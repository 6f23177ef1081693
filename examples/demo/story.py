"""The story: each act applies a file that users could apply, waits for the end and checks it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from examples.demo.acts import (
    CARELESS,
    FIRST,
    GOOD,
    INCIDENT,
    MEMORY,
    REFUSED,
    RELAXED,
    Act,
)
from examples.demo.gallery import Gallery
from examples.demo.ground import Ground
from examples.demo.narrator import Narrator
from examples.demo.service import NAME, Ending, Service, Unexpected
from examples.demo.spelling import EVALUATION, said
from examples.demo.watch import Kill, LineWatch, PodWatch
from tests.cluster.progress import duration

__all__ = ["tell"]

_RETRIES: Final = 2
_BUSY: Final = frozenset({"GateFailed", "Inconclusive"})
_COST, _COMPARED = "cost", "cost-vs-stable"
_PROMPT: Final = 'the word "LUMO" in red letters on white ground'


def tell(ground: Ground, narrator: Narrator) -> Path:
    """Tell the whole story, and return the file with the pictures that were served in it.

    Raises
    ------
    Unexpected
        A step ended other than it must.
    """
    service = Service(ground)
    gallery = Gallery(service)
    rows: list[tuple[str, str, str, str, str]] = []
    with LineWatch(ground.cluster, ground.namespace, narrator.watched):
        rows.append(_row(_play(FIRST, service, narrator)))
        gallery.collect(FIRST)
        gallery.remark(FIRST, f"the first stable; {said(FIRST.setting)}")
        _ask_for_a_picture(service, narrator)
        rows.extend(_row(ending) for ending in _promotion(GOOD, service, narrator))
        gallery.collect(GOOD)
        gallery.remark(GOOD, f"promoted; {_tell_of_the_saving(service, narrator)}")
        _ask_for_a_picture(service, narrator)
        rows.append(_refused(service, narrator))
        rows.append(_row(_play(INCIDENT, service, narrator, gallery)))
        rows.append(_row(_play(RELAXED, service, narrator)))
        gallery.remark(INCIDENT, "rolled back on latency, then on cost")
        with PodWatch(ground.cluster, ground.namespace, NAME) as pods:
            ending = _play(MEMORY, service, narrator)
            _tell_of_the_kill(pods, service, narrator)
        rows.append(_row(ending))
        _ask_for_a_picture(service, narrator)
        rows.extend(_row(ending) for ending in _promotion(CARELESS, service, narrator))
        gallery.collect(CARELESS)
        gallery.remark(CARELESS, _tell_of_the_spelling(narrator))
    narrator.summary(rows)
    return gallery.save()


def _play(act: Act, service: Service, narrator: Narrator, gallery: Gallery | None = None) -> Ending:
    before = {} if act is FIRST else service.status()
    ending = _begin(act, service, narrator, gallery)
    _check(act, ending, before, service)
    return ending


def _begin(
    act: Act, service: Service, narrator: Narrator, gallery: Gallery | None = None
) -> Ending:
    """Play an act; a gallery asks its candidate for pictures while it is on trial."""
    attempt = 1 if act is FIRST else service.status().get("attempts", 0) + 1
    narrator.act(act.title, act.text)
    _show_command(act.example, service, narrator)
    began = time.monotonic()
    narrator.output(service.apply(act.file).rstrip())
    if gallery is not None and (revision := service.until_measured(attempt)):
        gallery.collect(act, revision)
    ending = service.until_ended(act.file, attempt, began)
    _tell_ending(ending, narrator)
    return ending


def _tell_ending(ending: Ending, narrator: Narrator) -> None:
    time.sleep(1)  # the watch shows the last line a moment after the status is there
    narrator.ending(ending)


def _promotion(act: Act, service: Service, narrator: Narrator) -> list[Ending]:
    """Play a candidate that keeps all limits; a machine that stood still gets another chance.

    Latency and cost are wall-clock time, and without a GPU they depend on who else computes here.
    """
    endings = [_begin(act, service, narrator)]
    while endings[-1].record["reason"] in _BUSY and len(endings) <= _RETRIES:
        record = endings[-1].record
        narrator.say(
            "This candidate is fast enough, so the machine was too busy with other things "
            f"(load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores). A rejected "
            "revision is not tried again by itself, but on purpose:"
        )
        retry = f"modelrollout.dev/retry={record['revision']}"
        command = ("annotate", "mro", NAME, "-n", service.namespace, "--overwrite", retry)
        narrator.command("kubectl", *command)
        began = time.monotonic()
        narrator.output(service.cluster.kubectl(*command).rstrip())
        endings.append(service.until_ended(act.file, record["attempt"] + 1, began))
        _tell_ending(endings[-1], narrator)
    _check(act, endings[-1], {}, service)
    return endings


def _show_command(file: str, service: Service, narrator: Narrator) -> None:
    narrator.command("kubectl", "apply", "-n", service.namespace, "-f", f"examples/demo/{file}")


def _check(act: Act, ending: Ending, before: dict[str, dict[str, str]], service: Service) -> None:
    record, status = ending.record, ending.status
    seen = (record["outcome"], record["reason"])
    if seen != (act.outcome, act.reason):
        raise Unexpected(
            service,
            f"{act.example} should have ended as {act.outcome} ({act.reason}), and ended as "
            f"{seen[0]} ({seen[1]}): {record['message']}",
        )
    failed = [gate["name"] for gate in status.get("gates", []) if gate["verdict"] == "Fail"]
    if act.gate and act.gate not in failed:
        raise Unexpected(
            service,
            f"{act.example} should have failed on the gate {act.gate}, and failed on {failed}",
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
    _show_command(REFUSED, service, narrator)
    before = service.read()["metadata"]["generation"]
    began = time.monotonic()
    answer = service.refusal(INCIDENT.file.with_name(REFUSED))
    took = time.monotonic() - began
    narrator.output(answer)
    narrator.say("=> refused; the service goes on as it was")
    if "fast_ema" not in answer:
        raise Unexpected(service, "the refusal should have named the scheduler fast_ema")
    if service.read()["metadata"]["generation"] != before:
        raise Unexpected(service, "a refused file changed the rollout")
    return (REFUSED, "refused", "schema", duration(took), "")


def _ask_for_a_picture(service: Service, narrator: Narrator) -> None:
    picture = service.picture(_PROMPT, seed=7)
    stable = service.status()["stable"]["revision"]
    narrator.point(
        f"a user asks for a picture: {picture.size}, by revision {stable}, "
        f"in {duration(picture.seconds)}"
    )


def _tell_of_the_saving(service: Service, narrator: Narrator) -> str:
    """Tell what a picture costs now; return it in few words."""
    gates = {gate["name"]: gate for gate in service.status()["gates"]}
    cost, compared = (gates[name].get("estimate", "") for name in (_COST, _COMPARED))
    if "cheaper" not in compared:
        raise Unexpected(
            service, f"the cost of a picture should have fallen: {gates[_COMPARED].get('message')}"
        )
    narrator.point(
        f"a picture costs {cost} now: {compared} than by {FIRST.setting.model} at the same time"
    )
    return f"{cost} per picture, {compared}; {said(GOOD.setting)}"


def _tell_of_the_spelling(narrator: Narrator) -> str:
    """Tell what no gate has seen; return it in few words."""
    now, before = said(CARELESS.setting), said(FIRST.setting)
    narrator.point(
        f"what no gate has seen: by the evaluation in {EVALUATION} this setting gets {now}, and "
        f"{FIRST.setting.steps} steps get {before}. A gate that reads the pictures can tell; "
        "there is none yet."
    )
    return f"promoted, for no gate reads the words; {now}"


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
