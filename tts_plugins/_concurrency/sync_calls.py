"""Coroutines that synchronous code waits for, on any thread, and in a running event loop too."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tts_plugins._concurrency import forks, running_code
from tts_plugins._concurrency.loop_threads import ENGINE, USER, exiting, patched_by, submit
from tts_plugins._concurrency.thread_pool import POOL, NoThread, on_pool

__all__ = ["all_waiting_threads", "calling_thread", "run_sync", "waiting_threads"]

T = TypeVar("T")
_PATIENCE = 1.0, 5.0  # seconds before the first check that what one waits for can end, and between later ones
_SETTLING = 5.0  # seconds in which what was interrupted should have settled; a second interrupt ends them
_FEW = 64  # calls that wait; of more, each checks less often, since it looks at all of them

# Set where a loop of ours is blocked by what runs here, so that nothing in here may wait for that loop.
_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("tts_plugins_apart", default=False)
# The calls of `run_sync` around what runs here, the innermost last, and the threads of those that still wait.
_calls: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar("tts_plugins_calls", default=())
running_code.read(_calls)
_waiting: dict[int, int] = {}
forks.on_fork(_waiting.clear)
_numbers = itertools.count()
_patched_at_import = patched_by()


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
            gevent or eventlet has patched threads too late.
    """
    if exiting.is_set():
        return _run_here(function)
    if (patched := patched_by()) is not None and not _patched_at_import:
        raise RuntimeError(
            f"{patched.partition('.')[0]} has patched threads after tts_plugins was imported, which has real ones: "
            f"what they finish wakes no greenlet; call {patched} before anything else is imported"
        )
    pool = POOL if on_pool() else None
    call, context = next(_numbers), contextvars.copy_context()
    context.run(_calls.set, (*_calls.get(), call))
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
    if _apart.get() or threading.get_ident() in (USER.ident, ENGINE.ident):
        return _run_apart(function, context)
    try:
        loop = ENGINE.loop()
    except NoThread:
        return _run_here(function)
    # Made before it is submitted, since an interrupt may come at any moment, and finds what to stop here.
    future, ended = concurrent.futures.Future[T](), threading.Event()
    patience, later = _PATIENCE
    try:
        submit(loop, function, context, future, ended)
        while True:
            try:
                return future.result(timeout=patience * max(1.0, len(_waiting) / _FEW))
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise  # its own
                if not exiting.is_set():  # then this thread, a daemon, is about to be stopped where it waits
                    ENGINE.check()
                    _check_lets_go()
                patience = later
    except BaseException:  # KeyboardInterrupt in the waiting thread: what runs is stopped and settled
        if future.cancel():
            ended.wait(timeout=_SETTLING)
        raise
    finally:
        del future  # as in `in_thread`


def _check_lets_go(*threads: int | None) -> None:
    """Raise if this thread holds up those that work for it, so that nobody waits for ever."""
    here = threading.get_ident()
    for_it = running_code.threads(lambda context: here in waiting_threads(context))
    ours = {ident for ident in (ENGINE.ident, USER.ident, *threads, *for_it) if ident is not None}
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
