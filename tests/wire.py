"""A server that answers with bytes as they are, head included, on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Self

Actions = Sequence[bytes | asyncio.Event]
"""Of one answer: bytes to send, and events to wait for; then the connection is closed, unless the last is KEEP."""
KEEP = b""


def answer(body: Any, status: int = 200, *headers: str, length: int | str | None = -1, version: str = "1.1") -> bytes:
    """Return an answer of HTTP whose length is that of its body, unless another one or None is given."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/{version} {status} Said", "Content-Type: application/json", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(data) if length == -1 else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def in_chunks(*parts: bytes, headers: Sequence[str] = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """Return an answer whose body is sent in chunks."""
    head = answer(b"", 200, "Transfer-Encoding: chunked", *headers, length=None)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


class WireServer:
    """Answers each request with what a function makes of its number and its head.

    Attributes:
        requests: first line and body of all that came.
        connections: how many were opened.
        done: how many actions.
    """

    def __init__(self, answers: Callable[[int, bytes], Actions]) -> None:
        self._answers, self._tasks = answers, set[asyncio.Task[None]]()
        self.requests, self.connections, self.done = list[tuple[str, bytes]](), 0, 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(int(sizes[0])) if sizes else b""
        self.requests.append((head.partition(b"\r\n")[0].decode(), body))
        actions = self._answers(len(self.requests) - 1, head)
        for action in actions:
            if isinstance(action, asyncio.Event):
                await action.wait()
            else:
                writer.write(action)
                await writer.drain()
            self.done += 1
        return bool(actions) and actions[-1] == KEEP
