"""A small HTTP server on the loopback that answers as badly as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from imagegen import contract
from modelrollout.evidence.queries import PROBE_FAMILIES, SERVER_FAMILIES


@dataclass
class Question:
    """A request that arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Answering:
    """The server: how it answers, and what it was asked."""

    answer: Answer
    url: str = ""
    questions: list[Question] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)


@contextmanager
def answering(answer: Answer) -> Iterator[Answering]:
    """Run the server; what it does can be changed meanwhile."""
    state = Answering(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            state.questions.append(Question(parts.path, query, dict(self.headers)))
            state.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

        @property
        def ending(self) -> threading.Event:
            return state.ending

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up on a bad answer is right to do so."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


def body(
    content: bytes, *, status: int = 200, kind: str = "application/json", **headers: str
) -> Answer:
    """Answer with these bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def document(content: Any, *, status: int = 200) -> Answer:
    """Answer with this JSON."""
    return body(json.dumps(content).encode(), status=status)


def vector(rows: Sequence[Any], **beside: Any) -> Any:
    """An answer of Prometheus: an instant vector."""
    data = {"resultType": "vector", "result": rows}
    return {"status": "success", "data": data, **beside}


def row(value: str = "0", **labels: str) -> Any:
    return {"metric": labels, "value": [1772366400.0, value]}


Values = dict[str, list[tuple[dict[str, str], float]]]


def server_values(requests: int = 0) -> Values:
    """The series of one pod that served so many requests of one image in 1 s, by family."""
    outcomes = dict.fromkeys(contract.Outcome, 0) | {contract.Outcome.OK: requests}
    edges = {"0.5": 0, "1.7": requests, "3.0": requests, "+Inf": requests}
    return {
        contract.REQUESTS_TOTAL: [({"outcome": key}, value) for key, value in outcomes.items()],
        contract.REQUEST_DURATION_BUCKET: [({"le": key}, value) for key, value in edges.items()],
        contract.IMAGES_TOTAL: [({}, requests)],
        contract.REQUEST_GPU_SECONDS_COUNT: [({}, requests)],
        contract.REQUEST_GPU_SECONDS_SUM: [({}, requests * 0.8)],
        contract.REQUEST_GPU_SECONDS_SQUARES_SUM: [({}, requests * 0.65)],
        contract.GPU_BUSY_SECONDS_TOTAL: [({}, requests * 0.8)],
        contract.OOM_TOTAL: [({}, 0)],
        **log_values({PLAIN: [1.0] * requests} if requests else {}),
    }


PLAIN = contract.request_class(None, None, 1)
LARGE = contract.request_class((1024, 1024), None, 1)


def log_values(durations: Mapping[str, Sequence[float]]) -> Values:
    """The moments of requests that took so many seconds, by class; others have no series."""
    logs = {
        name: [contract.log_duration(item) for item in each] for name, each in durations.items()
    }
    return {
        contract.REQUEST_LOG_SECONDS_COUNT: _by_class(logs, len),
        contract.REQUEST_LOG_SECONDS_SUM: _by_class(logs, sum),
        contract.REQUEST_LOG_SECONDS_SQUARES_SUM: _by_class(
            logs, lambda terms: sum(term**2 for term in terms)
        ),
    }


def _by_class(
    logs: Mapping[str, Sequence[float]], moment: Callable[[Sequence[float]], float]
) -> list[tuple[dict[str, str], float]]:
    return [({"request_class": name}, moment(terms)) for name, terms in logs.items()]


def device_values(**bytes_by_kind: float) -> Values:
    """The memory of a pod's device."""
    return {contract.VRAM_BYTES: [({"kind": kind}, n) for kind, n in bytes_by_kind.items()]}


def like_prometheus(pods: int) -> Answer:
    """Answer each query with the series of so many pods."""
    values = server_values(10)
    asked = {family.query: family.name for family in (*SERVER_FAMILIES, *PROBE_FAMILIES)}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)["query"][0]
        series = values.get(asked[query], [])
        rows = [
            row(str(value), namespace="shop", pod=f"pod-{number}", **labels)
            for number in range(pods)
            for labels, value in series
        ]
        document(vector(rows))(handler)

    return answer
