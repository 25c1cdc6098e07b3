"""Where the loopback server runs: in a thread of this process, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import select
import selectors
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any, Protocol

from tts_plugins.testing.loopback._app import LoopbackApp
from tts_plugins.testing.loopback._meter import Counts, Recorded
from tts_plugins.testing.loopback._settings import Settings

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Host(Protocol):
    """A running server, wherever it is."""

    def start(self, settings: Settings, port: int) -> int: ...
    def stop(self) -> None: ...
    def counts(self) -> Counts: ...
    def requests(self) -> list[Recorded]: ...
    def reset(self) -> None: ...
    def configure(self, settings: Settings) -> None: ...


if hasattr(selectors, "EpollSelector"):

    class _PreciseSelector(selectors.EpollSelector):
        """epoll with waits as fine as the clock: epoll_wait rounds up to whole milliseconds, select does not.

        An epoll descriptor is itself readable when one of its own is, so select waits on it alone.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < 1024:  # select's limit on descriptors
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    def _new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_PreciseSelector())

else:  # kqueue is fine enough

    def _new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()


class ThreadHost:
    """A thread with an event loop of its own: the test's loop may block, and the server still answers."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, settings: Settings, port: int) -> int:
        self._app = LoopbackApp(settings)
        self._final: Counts | None = None
        started: Future[int] = Future()

        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self._app.serve(port, started.set_result, self._stop)

        def target() -> None:
            try:
                with asyncio.Runner(loop_factory=_new_loop) as runner:
                    runner.run(main())
            except BaseException as error:
                # while starting, it is raised where the server is started
                if started.done():
                    raise
                started.set_exception(error)

        self._thread = threading.Thread(target=target, name="loopback-server", daemon=True)
        self._thread.start()
        return started.result(_START_SECONDS)

    def stop(self) -> None:
        if self._thread is None:
            return
        self._final = self._app.counts()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the loopback server's thread did not end: a reply function still runs in it")
        self._thread = None

    def counts(self) -> Counts:
        return self._app.counts() if self._final is None else self._final

    def requests(self) -> list[Recorded]:
        return self._app.meter.requests

    def reset(self) -> None:
        self._app.meter.reset()

    def configure(self, settings: Settings) -> None:
        self._app.configure(settings)


class ProcessHost:
    """A child process, so that a benchmark measures the client's CPU alone. It ends with its parent, killed or not."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self, settings: Settings, port: int) -> int:
        order = json.dumps({"settings": settings.to_json(), "port": port})
        # -c and not -m: the module may have been imported by its package already, of which -m warns
        command = [sys.executable, "-c", "from tts_plugins.testing.loopback.__main__ import main; main()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(order + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            self._end(self._child)
            raise RuntimeError("the loopback server's process ended before it listened; its error is on stderr")
        found = int(json.loads(line)["port"])
        self._http = http.client.HTTPConnection("127.0.0.1", found, timeout=_STOP_SECONDS)
        self._final: tuple[Counts, list[Recorded]] | None = None
        return found

    def stop(self) -> None:
        if self._child is None:
            return
        # a child that crashed or was killed has no last word to give
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._final = (self.counts(), self.requests())
        self._http.close()
        self._end(self._child)
        self._child = None

    def _end(self, child: subprocess.Popen[str]) -> None:
        # the child ends when its stdin does; with Popen the pipes are closed whatever happens
        with child:
            assert child.stdin is not None
            child.stdin.close()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()

    def counts(self) -> Counts:
        return self._final[0] if self._final else Counts(**self._control()["counts"])

    def requests(self) -> list[Recorded]:
        if self._final:
            return self._final[1]
        return [Recorded(**kept) for kept in self._control("?requests=1")["requests"]]

    def reset(self) -> None:
        self._control(order={"reset": True})

    def configure(self, settings: Settings) -> None:
        self._control(order={"configure": settings.to_json()})

    def _control(self, query: str = "", order: dict[str, Any] | None = None) -> dict[str, Any]:
        body = None if order is None else json.dumps(order)
        with self._lock:
            self._http.request("GET" if order is None else "POST", f"/control{query}", body)
            response = self._http.getresponse()
            data = response.read()
        if response.status != 200:
            raise RuntimeError(f"the loopback server refused {order}: {response.status} {data[:200]!r}")
        answer: dict[str, Any] = json.loads(data)
        return answer


def serve_until_eof(settings: Settings, port: int) -> None:
    """Announce the port as a line of JSON on stdout, and serve until stdin ends: the child's side."""

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def watch() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(stop.set)

        def ready(found: int) -> None:
            sys.stdout.write(json.dumps({"port": found, "base_url": f"http://127.0.0.1:{found}/v1"}) + "\n")
            sys.stdout.flush()

        threading.Thread(target=watch, name="loopback-stdin", daemon=True).start()
        await LoopbackApp(settings).serve(port, ready, stop)

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(main())
