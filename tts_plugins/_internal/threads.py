"""Where code runs: the user's functions never block the loop that keeps the deadlines.

A synchronous function runs on a daemon thread of a pool of its own: the default executor has few threads, and joins
them at exit, so that one function that never returns would hang the interpreter. Synchronous entry points share one
background loop, which keeps connections warm between calls; coroutines of the user run on a second one there, and on
the caller's own loop elsewhere.

Two places cannot start threads. At the exit of the interpreter (`atexit`, `weakref.finalize`, `__del__`) everything
runs on the thread that asks. Under gevent's patched threads all loops would be on one thread, where only one can run:
there the coroutines of the user run on the loop of the engine.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import inspect
import itertools
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from tts_plugins._concurrency import forks, running_code
from tts_plugins._concurrency.thread_pool import NoThread, Pool, as_exception, begin

__all__ = [
    "NoThread",
    "all_waiting_threads",
    "call_user",
    "caller_of",
    "calling_thread",
    "in_thread",
    "on_engine_loop",
    "on_user_loop",
    "run_sync",
    "submit",
    "waiting_threads",
]

T = TypeVar("T")
_PATIENCE = 1.0, 5.0  # seconds before the first check that what one waits for can end, and between later ones

_pool = Pool()
# Set where a loop of ours is blocked by what runs here, so that nothing in here may wait for that loop.
_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("tts_plugins_apart", default=False)
# Set on a thread of the pool, whose function may wait for a solve of its own.
_pooled: contextvars.ContextVar[bool] = contextvars.ContextVar("tts_plugins_pooled", default=False)
# The calls of `run_sync` around what runs here, the innermost last, and the threads of those that still wait.
_calls: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar("tts_plugins_calls", default=())
running_code.read(_calls)
_waiting: dict[int, int] = {}
_numbers = itertools.count()
# At exit no thread is reliable: the daemons are about to be stopped, and from Python 3.12 on none starts.
_exiting = threading.Event()


async def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """Return the function's result, computed on another thread with this context's variables.

    Cancelling the wait does not stop the function; its result is then dropped.

    Raises:
        NoThread: there is no thread, and none can be started.
    """
    if _exiting.is_set():
        return function(*args, **keywords)
    context = contextvars.copy_context()
    context.run(_pooled.set, True)
    future = begin(_pool, context, function, *args, **keywords)
    try:
        return await future
    finally:
        del future  # an error's traceback has this frame: it would refer to itself, and be freed late


def call_user(function: Callable[..., Any], *args: Any, **keywords: Any) -> Awaitable[Any]:
    """Return the result of a user's function, synchronous or not, computed off the engine's own loop."""
    return caller_of(function)(*args, **keywords)


def caller_of(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return `call_user` of this function: for one that is called often, whose kind is found out once."""
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
    return partial(on_user_loop if asynchronous else _on_thread, function)


async def _on_thread(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    result = await in_thread(function, *args, **keywords)
    return await on_user_loop(_awaited, result) if inspect.isawaitable(result) else result


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def on_user_loop(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> Awaitable[T]:
    """Return the result of a user's coroutine function, computed off the engine's own loop."""
    if not on_engine_loop() or _green():
        return _noted(function(*args, **keywords))
    context = contextvars.copy_context()
    return asyncio.wrap_future(_user.submit(lambda: _contained(function, *args, **keywords), context))


async def _noted(made: Awaitable[T]) -> T:
    key = running_code.begun(running_code.read_here(), asyncio.current_task())
    try:
        return await made
    finally:
        running_code.ended(key)


def _green() -> bool:
    """Return whether gevent has made greenlets of threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


_green_from_the_start = _green()


async def _contained(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **keywords: Any) -> T:
    """Run the function so that what would end the loop that all share ends the function only."""
    process = forks.process()
    try:
        result = await _noted(function(*args, **keywords))
    except BaseException as error:
        if forks.process() != process:
            forks.leave(error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise as_exception(error) from error
        raise
    if forks.process() != process:  # the function has forked, and the loop runs in the parent
        forks.leave()
    return result


def on_engine_loop() -> bool:
    """Return whether this runs on the loop that the synchronous entry points share."""
    return asyncio.get_running_loop() is _engine.running


def waiting_threads(context: running_code.Variables | None = None) -> tuple[int, ...]:
    """Return the threads that wait in `run_sync` for what runs here, or in a context; the innermost call's last."""
    calls = _calls.get() if context is None else context.get(_calls, ())
    return tuple(thread for call in calls if (thread := _waiting.get(call)) is not None)


def all_waiting_threads() -> set[int]:
    """Return the threads that wait in `run_sync`."""
    return set(list(_waiting.values()))


def calling_thread() -> int:
    """Return the thread that called `run_sync` around this, or else the one that this runs on."""
    return (waiting_threads() or (threading.get_ident(),))[-1]


def run_sync(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from synchronous code, inside a running event loop too.

    Raises:
        RuntimeError: the interpreter exits, or has no thread left, and this thread has a running loop already; what
            it was interrupted in, by a signal handler or a `__del__`, holds up the threads that it would wait for; or
            gevent has patched threads too late.
    """
    if _exiting.is_set():
        return _run_here(function)
    if _green() and not _green_from_the_start:
        raise RuntimeError(
            "gevent has patched threads after tts_plugins was imported, which has real ones: what they finish wakes no "
            "greenlet; call gevent.monkey.patch_all() before anything else is imported"
        )
    pool = _pool if _pooled.get() else None
    call, context = next(_numbers), contextvars.copy_context()
    context.run(_calls.set, (*_calls.get(), call))
    context.run(_pooled.set, False)
    _waiting[call] = threading.get_ident()
    if pool is not None:
        pool.waits(1)
    try:
        return _run_elsewhere(function, context)
    finally:
        _waiting.pop(call, None)  # a child has forgotten it
        if pool is not None:
            pool.waits(-1)


def _run_elsewhere(function: Callable[[], Coroutine[Any, Any, T]], context: contextvars.Context) -> T:
    if _apart.get() or threading.get_ident() in (_user.ident, _engine.ident):
        return _run_apart(function, context)
    ended = threading.Event()
    try:
        future = _engine.submit(function, context, ended)
    except NoThread:
        return _run_here(function)
    patience, later = _PATIENCE
    try:
        while True:
            try:
                return future.result(timeout=patience)
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise  # its own
                if not _exiting.is_set():  # then this thread, a daemon, is about to be stopped where it waits
                    _engine.check()
                    _check_lets_go()
                patience = later
    except BaseException:  # KeyboardInterrupt in the waiting thread: what runs is stopped and settled
        if future.cancel():
            ended.wait(timeout=1.0)
        raise
    finally:
        del future  # as in `in_thread`


def _check_lets_go(*threads: int | None) -> None:
    """Raise if this thread holds up those that work for it, so that nobody waits for ever."""
    here = threading.get_ident()
    for_it = running_code.threads(lambda context: here in waiting_threads(context))
    ours = {ident for ident in (_engine.ident, _user.ident, *threads, *for_it) if ident is not None}
    if forks.holds_up(ours):
        raise RuntimeError(
            "a solve was begun where it cannot run: this thread is in the middle of an import, or of a call of this "
            "package that a signal handler or a __del__ has interrupted, and the solve's own threads wait for that; "
            "begin it after the import, or set a flag in the handler and solve where that is read"
        )


def _run_here(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it on this thread, if no other one can be had."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return contextvars.copy_context().run(asyncio.run, function())
    raise RuntimeError(
        "a synchronous solve needs a thread beside this event loop, and none can be started: the interpreter exits, or "
        "the limit of threads is reached; use await solve(…) here"
    )


def _run_apart(function: Callable[[], Coroutine[Any, Any, T]], context: contextvars.Context) -> T:
    """Run it on a loop for itself: one of our own is what would be blocked, or is blocked already."""
    box = list[T | BaseException]()
    context.run(_apart.set, True)

    def job() -> None:
        try:
            box.append(context.run(asyncio.run, function()))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            box.append(error)

    thread = threading.Thread(target=job, daemon=True, name="tts-plugins-nested")
    thread.start()
    patience, later = _PATIENCE
    thread.join(patience)
    while thread.is_alive():
        _check_lets_go(thread.ident)
        thread.join(later)
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
        self._lock = forks.lock()
        self._thread: threading.Thread | None = None
        self.running: asyncio.AbstractEventLoop | None = None
        self.ident: int | None = None

    def submit(
        self,
        function: Callable[[], Coroutine[Any, Any, T]],
        context: contextvars.Context,
        ended: threading.Event | None = None,
    ) -> concurrent.futures.Future[T]:
        return submit(self._loop(), function, context, ended)

    def check(self) -> None:
        """Raise if nothing runs the loop any more, so that nobody waits for it for ever."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError(f"the thread {self._name!r} has ended, and what it was given will not be run")

    def _loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.running is None:
                loop, ready = asyncio.new_event_loop(), threading.Event()
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
        self.ident, process = threading.get_ident(), forks.process()
        loop.call_soon(ready.set)
        try:
            while not loop.is_closed():
                try:
                    loop.run_forever()
                    break
                except (SystemExit, KeyboardInterrupt):  # of one task, which has it; the others go on
                    continue
            if forks.process() != process:
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


def submit(
    loop: asyncio.AbstractEventLoop,
    function: Callable[[], Coroutine[Any, Any, T]],
    context: contextvars.Context | None = None,
    ended: threading.Event | None = None,
) -> concurrent.futures.Future[T]:
    """Run a coroutine function on a loop, from any thread; cancelling the future cancels it.

    The coroutine is made on that loop. `asyncio.run_coroutine_threadsafe` is given one that is made already, which a
    loop that ends before its turn never awaits, and Python then warns of it wherever it is collected.

    Args:
        context: to run it in; this one's by default.
        ended: set once it has ended, cancelled or not.

    Raises:
        RuntimeError: the loop is closed.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    inside = contextvars.copy_context() if context is None else context

    def start() -> None:
        try:
            task = loop.create_task(function(), context=inside)
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


def _settle(future: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if _exiting.is_set():  # threads that still wait are left waiting: nobody needs their result then
        return
    error = None if task.cancelled() else task.exception()
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled, perhaps at this moment
        if task.cancelled():
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


_engine = _LoopThread("tts-plugins-engine")
_user = _LoopThread("tts-plugins-user")


@atexit.register
def _at_exit() -> None:
    # With the import and not with the first solve: a handler that was registered before it runs later than this.
    _exiting.set()
    for each in (_engine, _user):
        each.shut_down()


_inherited: object = None


@forks.on_fork
def _in_child() -> None:
    global _pool, _engine, _user, _inherited
    # Never collected: to close such a loop would take its descriptors out of the selector that the parent still uses.
    _inherited = (_inherited, _engine, _user)
    for each in (_engine, _user):
        if each.running is not None and each.ident == threading.get_ident():
            each.running.stop()  # it would go on here once the code that forked returns, and take the parent's events
    _pool, _engine, _user = Pool(), _LoopThread("tts-plugins-engine"), _LoopThread("tts-plugins-user")
    _waiting.clear()
