"""A llama.cpp server that belongs to a model: started with its first call, ended with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tts_plugins._concurrency import forks
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConnectionFailed, ModelError
from tts_plugins.models._llama_cpp.server import LlamaServer
from tts_plugins.models._llama_cpp.weights import embedded_weights
from tts_plugins.models._openai.clients import Clients
from tts_plugins.types import Reply

EMBEDDED = "SmolLM2-135M-Instruct"
PLACEHOLDER = "http://127.0.0.1/v1"  # until the port is known


class Served:
    """Part of a model with `_base_url`, `_clients` and `_timeout`, whose server is a child process of this one."""

    _base_url: str | None
    _clients: Clients
    _timeout: float

    def _serve(self, path: str | Path | None, *, progress: Callable[[int, int], None] | None, **settings: Any) -> None:
        """Note what to serve on demand: a GGUF, or the embedded weights; `settings` are those of `LlamaServer`."""
        self._path, self._progress, self._settings = path, progress, settings
        self._lock = forks.lock()
        self._server: LlamaServer | None = None

    @property
    def base_url(self) -> str:
        """The running server's address, for any OpenAI client; it starts the server if it does not run."""
        return self.start().base_url

    @property
    def threads(self) -> int:
        """CPU threads in use."""
        return self.start().threads

    def start(self) -> LlamaServer:
        """Return the running server. Start it (and fetch the weights) if it does not run yet; this blocks."""
        with self._lock:
            if self._server is None or not self._server.alive:
                path = embedded_weights(progress=self._progress) if self._path is None else Path(self._path)
                self._server = LlamaServer(path, **self._settings)
                self._base_url = self._server.base_url
                self._clients = Clients(base_url=self._base_url, api_key="-", client=None, timeout=self._timeout)
            return self._server

    def close(self) -> None:
        """End the server and free its memory; a later call starts it again."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop, then `close`."""
        await self._clients.close()
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def _started(self) -> None:
        if self._server is None or not self._server.alive:
            await in_thread(self.start)

    async def _sent(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the reply to a request of the running server."""
        await self._started()
        try:
            return await ask()
        except ConnectionFailed as error:
            # Its server closes a kept connection now and then just as it is used again; nothing was generated then.
            if self._server is None or not self._server.alive:
                raise
            before = error.requests
        try:
            reply = await ask()
        except ModelError as error:
            error.requests += before
            raise
        usage = reply.usage
        return reply if usage is None else replace(reply, usage=replace(usage, requests=usage.requests + before))
