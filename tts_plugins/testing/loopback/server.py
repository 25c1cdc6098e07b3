"""Start, stop and ask the loopback server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from tts_plugins.testing.loopback._hosts import Host, ProcessHost, ThreadHost
from tts_plugins.testing.loopback._meter import Counts, Recorded
from tts_plugins.testing.loopback._settings import Options, Settings


class LoopbackServer:
    """The server; `with` starts and stops it. Options are those of `Settings`.

    Endpoints: POST /v1/chat/completions, /v1/completions, /v1/embeddings; GET /v1/models, /health; /tokenize and
    /apply-template if they are switched on; /control for the counts.

    Args:
        process: run in a child process. Functions among the options must then be importable; `reply` may be.
        port: 0 takes a free one.

    Raises:
        TypeError: an option that cannot travel to the child process (on start).
        ValueError: an option's value makes no sense.
    """

    def __init__(self, *, process: bool = False, port: int = 0, **options: Unpack[Options]) -> None:
        self.settings = Settings(**options)
        self._host: Host = ProcessHost() if process else ThreadHost()
        self._wanted = port
        self.port = 0

    def start(self) -> Self:
        """Listen; return when requests can be made."""
        self.port = self._host.start(self.settings, self._wanted)
        return self

    def stop(self) -> None:
        """Break off what is in flight and end. Counts and requests stay readable."""
        self._host.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def root_url(self) -> str:
        """The address without /v1: where /health, /tokenize and /control are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as base_url."""
        return f"{self.root_url}/v1"

    @property
    def counts(self) -> Counts:
        """A snapshot of what the server has seen and charged."""
        return self._host.counts()

    @property
    def requests(self) -> list[Recorded]:
        """The requests since the start or the last reset, in order of arrival."""
        return self._host.requests()

    def reset(self) -> None:
        """Reset counts and numbers to 0, and forget the requests."""
        self._host.reset()

    def configure(self, **options: Unpack[Options]) -> None:
        """Change some options from the next request on."""
        self.settings = replace(self.settings, **options)
        self._host.configure(self.settings)

    def wait(
        self, reached: Callable[[Counts], bool] = lambda counts: counts.active == 0, timeout: float = 60.0
    ) -> Counts:
        """Block until the counts are so (by default: nothing in flight), as disconnects are noticed a moment later.

        In async code use `await asyncio.to_thread(server.wait, ...)`, which lets the client's loop close its sockets.

        Raises:
            TimeoutError: they did not become so; the message has the counts.
        """
        end = time.monotonic() + timeout
        while not reached(counts := self.counts):
            if time.monotonic() > end:
                raise TimeoutError(f"not reached in {timeout} s: {counts}")
            time.sleep(0.002)
        return counts
