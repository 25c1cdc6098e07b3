"""The real server on a loopback port, in a thread with its own loop, for tests."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from tts_plugins.server.app import Server
from tts_plugins.server.run import bind
from tts_plugins.server.settings import ServerSettings

ASK: dict[str, Any] = {"model": "loopback", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}


class Serving:
    """A running server. `post` and `get` return the status, the JSON (or the text), and the headers."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    def post(
        self, path: str, body: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send("POST", path, data, key, {"Content-Type": "application/json", **(headers or {})})

    def get(
        self, path: str, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        return self._send("GET", path, None, key, dict(headers or {}))

    def _send(
        self, method: str, path: str, data: bytes | None, key: str | None, headers: dict[str, str]
    ) -> tuple[int, Any, Mapping[str, str]]:
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.root + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, _read(response.read()), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error.read()), error.headers

    def quiet(self, timeout: float = 10.0) -> bool:
        """Whether nothing runs any more, after a while."""
        end = time.monotonic() + timeout
        while self.server.service.tasks and time.monotonic() < end:
            time.sleep(0.01)
        return not self.server.service.tasks


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


@contextmanager
def serving(**settings: Any) -> Iterator[Serving]:
    """A server with these settings, on a free port."""
    sock = bind(ServerSettings(**{"base_url": "http://127.0.0.1:9/v1", **settings, "port": 0}))
    port = sock.getsockname()[1]
    server = Server(ServerSettings(**{"base_url": "http://127.0.0.1:9/v1", **settings, "port": port}))
    config = uvicorn.Config(
        server.application(), access_log=False, log_level="error", ws="none", lifespan="on", timeout_graceful_shutdown=2
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not running.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert running.started
    try:
        yield Serving(server, port)
    finally:
        server.observation.close()
        running.should_exit = True
        thread.join(20)
        sock.close()


def frames(text: str) -> list[dict[str, Any]]:
    """The data of a stream's events."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
