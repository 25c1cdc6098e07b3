"""Where code runs: the user's functions never block the loop that keeps the deadlines.

A synchronous function runs on a daemon thread of a pool that grows with the work: the default executor has few
threads, and joins them at exit, so that one function that never returns would hang the interpreter. Synchronous
entry points share one background loop, which keeps connections warm between calls; coroutines of the user run on
a second one there, and on the caller's own loop elsewhere.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

T = TypeVar("T")
_Job = Callable[[], None]
_IDLE = 64  # threads that are kept; a few more, where several end at the same moment


class _Pool:
    """Daemon threads; an idle one is reused, and a new one starts where none is idle."""

    def __init__(self) -> None:
        self._idle: collections.deque[queue.SimpleQueue[_Job]] = collections.deque()  # its ends need no lock

    def submit(self, job: _Job) -> None:
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(inbox,), daemon=True, name="tts-plugins-worker").start()
        inbox.put(job)

    def _work(self, inbox: queue.SimpleQueue[_Job]) -> None:
        while True:
            inbox.get()()
            if len(self._idle) >= _IDLE:
                return
            self._idle.append(inbox)


_pool = _Pool()
# Set where a loop of ours is blocked by what runs here, so that nothing in here may wait for that loop.
_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("tts_plugins_apart", default=False)


async def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """The function's result, computed on another thread with this context's variables.

    Cancelling the wait does not stop the function; its result is then dropped.
    """
    future = _begun(function, args, keywords)
    try:
        return await future
    finally:
        del future  # an error's traceback has this frame: it would refer to itself, and be freed late with all around


def _begun(function: Callable[..., T], args: tuple[Any, ...], keywords: dict[str, Any]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    call = functools.partial(contextvars.copy_context().run, function, *args, **keywords)
    _pool.submit(functools.partial(_work_for, loop, _inbox_of(loop), future, call))
    return future


def _work_for(loop: asyncio.AbstractEventLoop, inbox: _Inbox, future: asyncio.Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who awaits
        inbox.put(loop, future, None, _as_exception(error))
    else:
        inbox.put(loop, future, result, None)
    finally:
        del future  # as in `in_thread`


async def call_user(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """The result of a user's function, synchronous or not, off the engine's own loop."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await _on_user_loop(function, *args, **keywords)
    result = await in_thread(function, *args, **keywords)
    return await _on_user_loop(_awaited, result) if inspect.isawaitable(result) else result


async def _awaited(value: Awaitable[T]) -> T:
    return await value


async def _on_user_loop(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> T:
    if not on_engine_loop():
        return await function(*args, **keywords)
    return await asyncio.wrap_future(_user.submit(lambda: _contained(function, *args, **keywords)))


async def _contained(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> T:
    """What would end the loop that all share ends the function only."""
    try:
        return await function(*args, **keywords)
    except (SystemExit, KeyboardInterrupt) as error:
        raise _as_exception(error) from error


def on_engine_loop() -> bool:
    """Whether this runs on the loop that the synchronous entry points share."""
    return asyncio.get_running_loop() is _engine.running


def run_sync(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from synchronous code, inside a running event loop too."""
    if _apart.get() or threading.get_ident() in (_user.ident, _engine.ident):
        return _run_apart(function)
    ended = threading.Event()
    future = _engine.submit(function, ended)
    try:
        return future.result()
    except BaseException:  # KeyboardInterrupt in the waiting thread: what runs is stopped and settled
        if future.cancel():
            ended.wait(timeout=1.0)
        raise
    finally:
        del future  # as in `in_thread`


def _run_apart(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """On a loop for itself: one of our own is what would be blocked, or is blocked already."""
    context, box = contextvars.copy_context(), list[T | BaseException]()
    context.run(_apart.set, True)

    def job() -> None:
        try:
            box.append(context.run(asyncio.run, function()))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            box.append(error)

    thread = threading.Thread(target=job, daemon=True, name="tts-plugins-nested")
    thread.start()
    thread.join()
    if not isinstance(box[0], BaseException):
        return box[0]
    try:
        raise box[0]
    finally:
        box.clear()  # as in `in_thread`


class _LoopThread:
    """A loop on a daemon thread, started when first used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self.running: asyncio.AbstractEventLoop | None = None
        self.ident: int | None = None

    def submit(
        self, function: Callable[[], Coroutine[Any, Any, T]], ended: threading.Event | None = None
    ) -> concurrent.futures.Future[T]:
        loop = self._loop()
        context = contextvars.copy_context()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def start() -> None:
            try:
                task = loop.create_task(function(), context=context)
            except BaseException as error:  # noqa: BLE001 - a wrong argument, say: it belongs to who waits
                if ended is not None:
                    ended.set()
                future.set_exception(error)
                return
            future.add_done_callback(lambda f: loop.call_soon_threadsafe(task.cancel) if f.cancelled() else None)
            task.add_done_callback(lambda t: _settle(future, t))
            if ended is not None:
                task.add_done_callback(lambda _: ended.set())

        loop.call_soon_threadsafe(start)
        return future

    def _loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.running is None:
                loop = asyncio.new_event_loop()
                ready = threading.Event()

                def work() -> None:
                    asyncio.set_event_loop(loop)
                    self.ident = threading.get_ident()
                    loop.call_soon(ready.set)
                    while not loop.is_closed():
                        try:
                            return loop.run_forever()
                        except (SystemExit, KeyboardInterrupt):  # of one task, which has it; the others go on
                            continue

                thread = threading.Thread(target=work, daemon=True, name=self._name)
                thread.start()
                ready.wait()
                self.running = loop
                atexit.register(_shut_down, loop, thread)
            return self.running


def _shut_down(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """At exit, let clients close their connections; what does not end within a second is left behind."""

    async def end() -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=0.5)
        await loop.shutdown_asyncgens()
        loop.stop()

    if thread.is_alive():
        _exiting.set()
        loop.call_soon_threadsafe(lambda: loop.create_task(end()))
        thread.join(timeout=1.0)


# At exit, threads that still wait are left waiting: what they would say then concerns nobody.
_exiting = threading.Event()


def _settle(future: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if _exiting.is_set():
        return
    error = None if task.cancelled() else task.exception()
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled, perhaps at this moment
        if task.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


class _Inbox:
    """What threads have for a loop. It is woken once for all that came meanwhile: waking it takes system calls."""

    def __init__(self) -> None:
        # Weakly: whoever waits has the future; and a loop that was closed must not be kept alive by what came late.
        self._arrived: collections.deque[tuple[ref[asyncio.Future[Any]], Any, Exception | None]] = collections.deque()
        self._woken = False

    def put(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], result: Any, error: Exception | None
    ) -> None:
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


def _inbox_of(loop: asyncio.AbstractEventLoop) -> _Inbox:
    """The inbox of the loop that runs here."""
    if (inbox := _inboxes.get(loop)) is None:
        inbox = _inboxes[loop] = _Inbox()
    return inbox


def _as_exception(error: BaseException) -> Exception:
    """What a function raised, in a form that ends who called it, and neither a loop nor a task of ours."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - whoever waits has to hear of it all the same
        text = f"(its text cannot be read: {type(broken).__name__})"
    raised = RuntimeError(f"the function raised {type(error).__name__}: {text}")
    raised.__cause__ = error
    return raised


_engine = _LoopThread("tts-plugins-engine")
_user = _LoopThread("tts-plugins-user")


def _after_fork() -> None:
    """A child process has none of the threads, and perhaps a lock that one of them held."""
    global _pool, _engine, _user
    _pool, _engine, _user = _Pool(), _LoopThread("tts-plugins-engine"), _LoopThread("tts-plugins-user")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
