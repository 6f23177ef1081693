"""A real HTTP server that answers what a test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer; `before` is called before anything is sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None


@dataclass
class Seen:
    """One request."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]


Replies = Reply | Callable[[dict[str, Any]], Reply]
"""What is answered, or what tells it for a request's fields."""


@dataclass
class Scripted:
    """The running server: gives `replies` in turn, the last one for ever."""

    url: str
    replies: list[Replies]
    seen: list[Seen] = field(default_factory=list)


@contextmanager
def scripted(*replies: Replies, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                script.seen.append(Seen(self.path, dict(self.headers), fields))
                reply = script.replies[0]
                if len(script.replies) > 1:
                    script.replies.pop(0)
            if not isinstance(reply, Reply):
                reply = reply(fields)
            reply.before()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are part of the tests."""

    server = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    script = Scripted(f"{scheme}://127.0.0.1:{server.server_address[1]}/v1", list(replies))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
