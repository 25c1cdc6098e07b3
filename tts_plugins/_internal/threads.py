"""Where code runs: the user's functions never block the loop that keeps the deadlines.

A synchronous function runs on a daemon thread of a pool of its own: the default executor has few threads, and joins
them at exit, so that one function that never returns would hang the interpreter. Synchronous entry points share one
background loop, which keeps connections warm between calls; coroutines of the user run on a second one there, and on
the caller's own loop elsewhere.

Two places cannot start threads. At the exit of the interpreter (`atexit`, `weakref.finalize`, `__del__`) everything
runs on the thread that asks. Under the patched threads of gevent and eventlet all loops would be on one thread, where
only one can run: there the coroutines of the user run on the loop of the engine.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from tts_plugins._concurrency import forks, running_code
from tts_plugins._concurrency.loop_threads import ENGINE, USER, exiting, patched_by
from tts_plugins._concurrency.thread_pool import POOL, NoThread, as_exception

__all__ = ["NoThread", "call_user", "in_thread", "on_engine_loop", "on_user_loop", "way_of"]

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """Return the function's result, computed on another thread with this context's variables.

    Cancelling the wait does not stop the function; its result is then dropped.

    Raises:
        NoThread: there is no thread, and none can be started.
    """
    if exiting.is_set():
        return function(*args, **keywords)
    context = contextvars.copy_context()
    future = _begin(context, function, *args, **keywords)
    try:
        return await future
    finally:
        del future  # an error's traceback has this frame: it would refer to itself, and be freed late


class _Inbox:
    """What threads have for a loop. It is woken once for all that came meanwhile: waking it takes system calls."""

    def __init__(self) -> None:
        # Weakly: the code that waits has the future, and a loop that was closed must not be kept alive.
        self._arrived: collections.deque[tuple[ref[asyncio.Future[Any]], Any, Exception | None]] = collections.deque()
        self._woken = False

    def put(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], result: Any, error: Exception | None
    ) -> None:
        """Give the future its outcome, on its loop."""
        self._arrived.append((ref(future), result, error))
        if not self._woken:
            self._wake(loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._woken = True
        try:
            loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._woken = False
            self._arrived.clear()

    def _deliver(self) -> None:
        self._woken = False  # first: what arrives from here on wakes it again
        try:
            while self._arrived:
                waited, result, error = self._arrived[0]
                future = waited()
                if future is not None and not future.done():  # else nobody waits any more
                    if error is None:
                        future.set_result(result)
                    else:
                        future.set_exception(error)
                self._arrived.popleft()
        finally:
            if self._arrived:  # an interrupt of the user, on a loop that goes on after it
                self._wake(asyncio.get_running_loop())


_inboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Inbox] = WeakKeyDictionary()
forks.on_fork(lambda: _inboxes.clear())  # threads of the parent have nothing for a loop of a child


def _begin(context: contextvars.Context, function: Callable[..., T], *args: Any, **keywords: Any) -> asyncio.Future[T]:
    """Start the function on a thread, in this context; the future belongs to the running loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    if (inbox := _inboxes.get(loop)) is None:
        inbox = _inboxes[loop] = _Inbox()
    call = functools.partial(context.run, function, *args, **keywords)
    POOL.submit(functools.partial(_work_for, loop, inbox, future, call, context), loop)
    return future


def _work_for(
    loop: asyncio.AbstractEventLoop,
    inbox: _Inbox,
    future: asyncio.Future[T],
    call: Callable[[], T],
    context: contextvars.Context,
) -> float:
    """Call, give the future its outcome, and return the seconds that the call took."""
    key, process = running_code.begun(context), forks.pid
    started = time.monotonic()
    try:
        result = call()
        took = time.monotonic() - started
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who awaits
        took = time.monotonic() - started
        if forks.pid != process:
            forks.leave(error)
        inbox.put(loop, future, None, as_exception(error))
    else:
        if forks.pid != process:  # the function has forked, and the loop runs in the parent
            forks.leave()
        inbox.put(loop, future, result, None)
    finally:
        running_code.ended(key)
        del future  # an error's traceback has this frame: it would refer to itself, and be freed late
    return took


def call_user(function: Callable[..., Any], *args: Any, **keywords: Any) -> Awaitable[Any]:
    """Return the result of a user's function, synchronous or not, computed off the engine's own loop."""
    return way_of(function)(function, *args, **keywords)


def way_of(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return what `call_user` calls a function of this kind by: for one that is called often."""
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
    return on_user_loop if asynchronous else _on_thread


async def _on_thread(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    result = await in_thread(function, *args, **keywords)
    # What is awaitable is slow to find out of numbers.
    awaitable = type(result) is not float and inspect.isawaitable(result)
    return await on_user_loop(_awaited, result) if awaitable else result


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def on_user_loop(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> Awaitable[T]:
    """Return the result of a user's coroutine function, computed off the engine's own loop."""
    if not on_engine_loop() or patched_by() is not None:
        return _noted(function(*args, **keywords))
    context = contextvars.copy_context()
    return asyncio.wrap_future(USER.submit(lambda: _contained(function, *args, **keywords), context))


async def _noted(made: Awaitable[T]) -> T:
    key = running_code.begun_here()
    try:
        return await made
    except GeneratorExit as error:
        if running_code.is_here(key):  # else this coroutine is closed from outside: it was not the function that raised
            raise as_exception(error) from error
        raise
    finally:
        running_code.ended(key)


async def _contained(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> T:
    """Run the function so that what would end the loop that all share ends the function only."""
    process = forks.pid
    try:
        result = await _noted(function(*args, **keywords))
    except BaseException as error:
        if forks.pid != process:
            forks.leave(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise as_exception(error) from error
        raise
    if forks.pid != process:  # the function has forked, and the loop runs in the parent
        forks.leave()
    return result


def on_engine_loop() -> bool:
    """Return whether this runs on the loop that the synchronous entry points share."""
    return asyncio.get_running_loop() is ENGINE.running
