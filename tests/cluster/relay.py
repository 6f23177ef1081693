"""Carries connections from a socket that listens outside to an address inside.

Run as ``python -m tests.cluster.relay FD=HOST:PORT …``. A socket belongs to the network namespace
it was made in: the cluster's starter listens on the host's loopback and hands the socket down, and
this process, inside, connects to the API server. No interface and no route join the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_CHUNK = 1 << 18


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        # Half-closing lets the other direction finish: an exec session ends in order.
        writer.write_eof()


async def _serve(descriptor: int, host: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        inner_writer.close()
        writer.close()

    listener = socket.socket(fileno=descriptor)
    server = await asyncio.start_server(carry, sock=listener, limit=_CHUNK)
    await server.serve_forever()


async def _main(arguments: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for argument in arguments:
            descriptor, _, target = argument.partition("=")
            host, _, port = target.rpartition(":")
            group.create_task(_serve(int(descriptor), host, int(port)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
