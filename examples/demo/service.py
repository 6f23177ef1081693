"""The image service of the story, as its platform team sees it: YAML in, status out."""

from __future__ import annotations

import base64
import json
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from examples.demo.ground import Ground
from tests.cluster.errors import CommandError
from tests.cluster.handle import Cluster

__all__ = ["NAME", "Document", "Ending", "Picture", "Service", "Unexpected"]

Document = dict[str, Any]

NAME: Final = "campaign-images"
PATIENCE_SECONDS: Final = 420.0
"""How long an attempt may take: more than the deadlines that the examples declare for a stage."""

UNSEEN_SECONDS: Final = 45.0
"""How long the operator may take to see what was applied; it takes less than one second."""


class Unexpected(Exception):
    """A step ended other than the story says.

    Parameters
    ----------
    service
        The service, to be looked at.
    message
        What was expected and what was seen.
    """

    def __init__(self, service: Service, message: str) -> None:
        super().__init__(message)
        self.service = service


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    Attributes
    ----------
    file
        The example that began it.
    record
        The entry of ``status.history``.
    status
        The whole status at that moment.
    seconds
        Time from ``kubectl apply`` to the end.
    """

    file: str
    record: Document
    status: Document
    seconds: float

    @property
    def took_milliseconds(self) -> int | None:
        """Time from the decision until it was carried out and verified."""
        found: int | None = self.record.get("decisionToDoneMilliseconds")
        return found


@dataclass(frozen=True)
class Picture:
    """What a user got.

    Attributes
    ----------
    size
        Such as ``128x64``.
    seconds
        Time until the answer was there.
    png
        The picture.
    """

    size: str
    seconds: float
    png: bytes


class Service:
    """One ModelRollout.

    Parameters
    ----------
    ground
        The cluster and the namespace.
    """

    def __init__(self, ground: Ground) -> None:
        self.cluster: Cluster = ground.cluster
        self.namespace = ground.namespace

    def apply(self, file: Path) -> str:
        """Apply an example as users do, and return what kubectl said.

        Raises
        ------
        CommandError
            The API server refused it.
        """
        return self.cluster.kubectl("apply", "-n", self.namespace, "-f", str(file))

    def refusal(self, file: Path) -> str:
        """Apply an example that must be refused, and return the reason.

        Raises
        ------
        Unexpected
            It was taken.
        """
        try:
            said = self.apply(file)
        except CommandError as error:
            return error.output.strip()
        raise Unexpected(self, f"{file.name} should have been refused; kubectl says: {said}")

    def read(self) -> Document:
        """Return the object."""
        return self.cluster.get("modelrollout", NAME, "-n", self.namespace)

    def status(self) -> Document:
        """Return its status; empty before the operator has seen it."""
        found: Document = self.read().get("status") or {}
        return found

    def until_ended(self, file: Path, attempt: int, began: float) -> Ending:
        """Wait for the end of an attempt.

        Parameters
        ----------
        file
            The example that begins it.
        attempt
            Its number.
        began
            When the example was applied, by the monotonic clock.

        Raises
        ------
        Unexpected
            The spec is not accepted, or the attempt does not end.
        """
        while True:
            document = self.read()
            status = document.get("status") or {}
            for record in status.get("history", []):
                if record["attempt"] == attempt and not status.get("candidate"):
                    return Ending(file.name, record, status, time.monotonic() - began)
            accepted = condition(status, "Accepted")
            seen = status.get("observedGeneration") == document["metadata"]["generation"]
            if seen and accepted.get("status") == "False":
                raise Unexpected(self, f"{file.name} is not accepted: {accepted['message']}")
            if not seen and time.monotonic() - began > UNSEEN_SECONDS:
                raise Unexpected(
                    self, f"the operator has not taken up {file.name} in {UNSEEN_SECONDS:.0f} s"
                )
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise Unexpected(
                    self,
                    f"attempt {attempt} ({file.name}) did not end within {PATIENCE_SECONDS:.0f} s",
                )
            time.sleep(0.7)

    def until_measured(self, attempt: int) -> str:
        """Wait until the candidate of an attempt is ready to be measured, or the attempt is over.

        Returns
        -------
        str
            The candidate's revision; empty when there is none any more.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            status = self.status()
            if any(record["attempt"] == attempt for record in status.get("history", [])):
                break
            candidate = status.get("candidate") or {}
            if candidate.get("attempt") == attempt and candidate.get("stage") == "Isolated":
                revision: str = candidate["revision"]
                return revision
            time.sleep(0.5)
        return ""

    def picture(self, prompt: str, seed: int, revision: str = "") -> Picture:
        """Ask for a picture, as a user of the cluster does.

        Parameters
        ----------
        prompt, seed
            What is asked for.
        revision
            Whom to ask: a revision by its own Service; by default whatever serves the users.

        Raises
        ------
        Unexpected
            There is none.
        """
        began = time.monotonic()
        name = f"{NAME}-{revision}" if revision else NAME
        path = f"/api/v1/namespaces/{self.namespace}/services/{name}:http/proxy"
        try:
            answer = self.cluster.kubectl(
                *("create", "--raw", f"{path}/v1/images/generations", "-f", "-"),
                given=json.dumps({"prompt": prompt, "seed": seed}),
            )
        except CommandError as error:
            raise Unexpected(self, f"a user's request failed: {error.output.strip()}") from error
        seconds = time.monotonic() - began
        data = json.loads(answer).get("data")
        if not data:
            raise Unexpected(self, f"a user's request got no picture: {answer[:300]}")
        png = base64.b64decode(data[0]["b64_json"])
        # Width and height stand at the same place in every PNG.
        width, height = struct.unpack(">II", png[16:24])
        return Picture(f"{width}x{height}", seconds, png)


def condition(status: Document, kind: str) -> Document:
    """Return a condition of a status; empty when it is not there."""
    for item in status.get("conditions", []):
        if item["type"] == kind:
            found: Document = item
            return found
    return {}
