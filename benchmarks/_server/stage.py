"""The server and its upstream in processes of their own, and requests to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
_SERVE = """import sys
from tts_plugins.server import ServerSettings, serve
serve(ServerSettings.from_json(sys.argv[1]), workers=int(sys.argv[2]))"""


class Proxy:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self.pid = port, process.pid
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    def memory(self) -> int:
        """Bytes of it that are in memory."""
        text = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(text[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self) -> float:
        """Seconds of processor that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def proxy(workers: int = 1, **settings: Any) -> Iterator[Proxy]:
    """The server with these settings, in a process of its own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    command = [sys.executable, "-c", _SERVE, json.dumps({"view": False, **settings, "port": port}), str(workers)]
    process = subprocess.Popen(command, env=environment, cwd=settings.get("directory", "."))
    try:
        _await(port)
        yield Proxy(port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the server did not start")


def ask(**fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {
        "model": "loopback",
        "messages": [{"role": "user", "content": "What is 2 + 2?"}],
        "max_tokens": 16,
        **fields,
    }


def session(concurrency: int = 0) -> aiohttp.ClientSession:
    """Connections without limits."""
    timeout = aiohttp.ClientTimeout(total=120)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency), timeout=timeout)


async def post(http: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[int, Any]:
    """The status and the JSON of one chat request."""
    async with http.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
        raw = await answer.read()
        return answer.status, json.loads(raw) if answer.content_type == "application/json" else raw


async def many(count: int, concurrency: int, one: Any) -> list[Any]:
    """`one(i)` for each number, so many at a time."""
    places = asyncio.Semaphore(concurrency)

    async def placed(i: int) -> Any:
        async with places:
            return await one(i)

    return await asyncio.gather(*(placed(i) for i in range(count)))
