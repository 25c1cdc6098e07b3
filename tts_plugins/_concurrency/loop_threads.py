"""Event loops on threads of our own, what is run on a loop from elsewhere, and where no thread can be had."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tts_plugins._concurrency import forks
from tts_plugins._concurrency.thread_pool import NoThread, PoolExecutor

__all__ = ["ENGINE", "USER", "LoopThread", "exiting", "patched_by", "submit"]

T = TypeVar("T")
# At exit no thread is reliable: the daemons are about to be stopped, and from Python 3.12 on none starts.
exiting = threading.Event()
_inherited: list[asyncio.AbstractEventLoop | None] = []


class LoopThread:
    """A loop on a daemon thread, started when first used; `executor` makes its default executor."""

    def __init__(self, name: str, executor: Callable[[], ThreadPoolExecutor] | None = None) -> None:
        self._name, self._executor = name, executor
        self._lock = forks.lock()
        self._thread: threading.Thread | None = None
        self.running: asyncio.AbstractEventLoop | None = None
        self.ident: int | None = None
        forks.renew(self)

    def renew(self) -> None:
        """Have none in a child: the parent's runs there."""
        # Never collected: to close such a loop would take its descriptors out of the selector that the parent uses.
        _inherited.append(self.running)
        if self.running is not None and self.ident == threading.get_ident():
            self.running.stop()  # it would go on here once the code that forked returns, and take the parent's events
        self._thread = self.running = self.ident = None

    def submit(
        self,
        function: Callable[[], Coroutine[Any, Any, T]],
        context: contextvars.Context,
    ) -> concurrent.futures.Future[T]:
        return submit(self.loop(), function, context)

    def check(self) -> None:
        """Raise if nothing runs the loop any more, so that nobody waits for it for ever."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError(f"the thread {self._name!r} has ended, and what it was given will not be run")

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, and start its thread before if it has none.

        Raises:
            NoThread: no thread can be started.
        """
        with self._lock:
            if self.running is None:
                loop, ready = _new_loop(), threading.Event()
                if self._executor is not None:
                    loop.set_default_executor(self._executor())
                failed: list[BaseException] = []
                thread = threading.Thread(target=self._work, args=(loop, ready, failed), daemon=True, name=self._name)
                try:
                    thread.start()
                except (RuntimeError, MemoryError) as error:
                    loop.close()
                    raise NoThread(f"no thread can be started for an event loop ({error})") from error
                ready.wait()
                if failed:
                    raise RuntimeError(f"no event loop runs on the thread {self._name!r}: {failed[0]}") from failed[0]
                self._thread, self.running = thread, loop
            return self.running

    def _work(self, loop: asyncio.AbstractEventLoop, ready: threading.Event, failed: list[BaseException]) -> None:
        asyncio.set_event_loop(loop)
        self.ident, process = threading.get_ident(), forks.pid
        loop.call_soon(ready.set)
        try:
            while not loop.is_closed():
                try:
                    loop.run_forever()
                    break
                except (SystemExit, KeyboardInterrupt):  # of one task, which has it; the others go on
                    continue
            if forks.pid != process:
                forks.leave(RuntimeError("code on an event loop has forked, and the child came back to that loop"))
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    def shut_down(self) -> None:
        """Let clients close their connections; what does not end within a second is left behind."""
        loop, thread = self.running, self._thread

        async def end() -> None:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=0.5)
            await loop.shutdown_asyncgens()  # type: ignore[union-attr]
            loop.stop()  # type: ignore[union-attr]

        if loop is not None and thread is not None and thread.is_alive():
            loop.call_soon_threadsafe(lambda: loop.create_task(end()))
            thread.join(timeout=1.0)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.new_event_loop()
    except OSError as error:
        raise OSError(
            error.errno,
            f"no event loop can be opened ({error.strerror}): it needs three descriptors; raise the limit of open "
            "files of this process (ulimit -n), or close files and connections that it keeps",
        ) from error


def submit(
    loop: asyncio.AbstractEventLoop,
    function: Callable[[], Coroutine[Any, Any, T]],
    context: contextvars.Context | None = None,
    future: concurrent.futures.Future[T] | None = None,
    ended: threading.Event | None = None,
) -> concurrent.futures.Future[T]:
    """Run a coroutine function on a loop, from any thread; cancelling the future cancels it.

    The coroutine is made on that loop. `asyncio.run_coroutine_threadsafe` is given one that is made already, which a
    loop that ends before its turn never awaits, and Python then warns of it wherever it is collected.

    Args:
        context: to run it in; this one's by default.
        future: to return; a new one by default.
        ended: set once it has ended, cancelled or not.

    Raises:
        RuntimeError: the loop is closed.
    """
    result = concurrent.futures.Future[T]() if future is None else future
    inside = contextvars.copy_context() if context is None else context

    def start() -> None:
        if result.cancelled():
            if ended is not None:
                ended.set()
            return
        try:
            task = loop.create_task(function(), context=inside)
        except BaseException as error:  # noqa: BLE001 - a wrong argument, say: it belongs to who waits
            if ended is not None:
                ended.set()
            result.set_exception(error)
            return
        result.add_done_callback(lambda f: loop.call_soon_threadsafe(task.cancel) if f.cancelled() else None)
        task.add_done_callback(lambda t: _settle(result, t))
        if ended is not None:
            task.add_done_callback(lambda _: ended.set())

    loop.call_soon_threadsafe(start)
    return result


def _settle(future: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if exiting.is_set():  # threads that still wait are left waiting: nobody needs their result then
        return
    error = None if task.cancelled() else task.exception()
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled, perhaps at this moment
        if task.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


def patched_by() -> str | None:
    """Return the function that has made greenlets of threads, by name: gevent's or eventlet's."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent.monkey.patch_all()"
    eventlet: Any = sys.modules.get("eventlet.patcher")
    return "eventlet.monkey_patch()" if eventlet is not None and eventlet.is_monkey_patched("thread") else None


ENGINE = LoopThread("tts-plugins-engine")
"""The loop that the synchronous entry points share."""
USER = LoopThread("tts-plugins-user", PoolExecutor)
"""The loop of the user's coroutines inside of those."""


@atexit.register
def _at_exit() -> None:
    # With the import and not with the first solve: a handler that was registered before it runs later than this.
    exiting.set()
    for each in (ENGINE, USER):
        each.shut_down()
