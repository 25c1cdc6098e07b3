"""The user's functions that run now, and which of them wait for a thread, as far as their frames tell.

A function may hand work to an executor of its own and wait for it. The thread that does the work has none of the
function's context variables, so it does not know whose call it is part of. The frames show it: the waiting thread is in
`Future.result` or `Thread.join`, or awaits a future of `run_in_executor`; the other one runs this future or thread.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import thread as _executors
from contextvars import ContextVar
from types import FrameType
from typing import Any

from tts_plugins._concurrency import forks

_RESULTS = {Future.result.__code__, Future.exception.__code__, threading.Thread.join.__code__}
_WAITING = (threading.__file__, sys.modules["concurrent.futures._base"].__file__)
_WORK, _LOOP = _executors._WorkItem.run.__code__, _executors._worker.__code__
_DEPTH = 12  # frames between a wait and who called it

Variables = Mapping[ContextVar[Any], Any]
"""A context, or what is read of it here: all of one that goes on would keep its earlier states alive."""
_read: list[ContextVar[Any]] = []
_numbers = itertools.count()
Running = tuple[int, "asyncio.Task[object] | None", Variables]
"""The thread that a function runs on, the task there, if it is in one, and what is read of its context."""


class _InTask(dict[ContextVar[Any], Any]):
    """What is read of a task's context, and where that runs: one object, since each candidate under way has one."""

    __slots__ = ("task", "thread")
    task: asyncio.Task[object] | None
    thread: int


_running: dict[int, Running | _InTask] = {}
forks.on_fork(_running.clear)


def _functions() -> list[Running]:
    return [each if isinstance(each, tuple) else (each.thread, each.task, each) for each in list(_running.values())]


def read(variable: ContextVar[Any]) -> None:
    """Have the variable be part of what is read of a task's context; it has a default."""
    _read.append(variable)


def begun(context: Variables) -> int:
    """Remember that a function of the user runs on this thread, in this context; return a key for `ended`."""
    key = next(_numbers)
    _running[key] = threading.get_ident(), None, context
    return key


def begun_here() -> int:
    """Remember that a function of the user runs in this task; return a key for `ended`."""
    key, here = next(_numbers), _InTask({variable: variable.get() for variable in _read})
    here.thread, here.task = threading.get_ident(), asyncio.current_task()
    _running[key] = here
    return key


def ended(key: int) -> None:
    """Forget it."""
    _running.pop(key, None)


def contexts() -> list[Variables]:
    """The contexts of all functions of the user that run now."""
    return [context for *_, context in _functions()]


def by_thread() -> dict[int, list[Variables]]:
    """The contexts of the functions that run on each thread, or in tasks of its loop."""
    out = dict[int, list[Variables]]()
    for thread, _, context in _functions():
        out.setdefault(thread, []).append(context)
    return out


def threads(of: Callable[[Variables], bool]) -> set[int]:
    """The threads that run a function of the user whose context is one of these, tasks left aside."""
    return {thread for thread, task, context in _functions() if task is None and of(context)}


def waiting_for(
    threads: Collection[int], waiting: Collection[int] = (), loops: Collection[int] = ()
) -> dict[int, tuple[list[Variables], set[int]]]:
    """What waits for what each of these threads does, or for its turn, as the frames show at this moment.

    Args:
        threads: those that are looked at.
        waiting: threads that wait themselves. Where these are all the threads of an executor, and one of `threads` is
            among them, a function that waits for work which has not begun waits for that thread too: its work is queued
            behind theirs.
        loops: threads that run an event loop.

    Returns:
        By thread, if anything waits for it: the contexts of functions that do, and the threads of functions and loops
        that do, each with all that runs on its loop.
    """
    functions = _functions()
    if not functions and not loops:
        return {}
    frames = sys._current_frames()
    try:
        joins = {each: _joined(frames.get(each)) for each in {*loops, *(ident for ident, *_ in functions)}}
        joins = {each: awaited for each, awaited in joins.items() if awaited}
        awaits = [(context, awaited) for _, task, context in functions if (awaited := _awaited(task))]
        out = {}
        for thread in threads if joins or awaits else ():
            work = _work_of(frames.get(thread))
            full = thread in waiting and _is_full(thread, frames, waiting)
            if full or any(map(_may_be_awaited, work)):
                blocked = {each for each, awaited in joins.items() if _any(awaited, work, full)}
                found = [context for ident, task, context in functions if task is None and ident in blocked]
                found += [context for context, awaited in awaits if _any(awaited, work, full)]
                out[thread] = found, blocked
        return out
    finally:
        frames.clear()  # this frame is one of them: a circle


def _any(awaited: Sequence[object], work: Sequence[object], full: bool) -> bool:
    return any(each in work or (full and _not_begun(each)) for each in awaited)


def _work_of(frame: FrameType | None) -> Sequence[object]:
    """Return what others may wait for of a thread: its executor's future, futures chained to it, and the thread."""
    out = list[object]()
    while frame is not None:
        if frame.f_code is _WORK:
            future = getattr(frame.f_locals.get("self"), "future", None)
            out += [future, *_chained(future)]
        elif isinstance(thread := frame.f_locals.get("self"), threading.Thread) and frame.f_back is None:
            out.append(thread)
        frame = frame.f_back
    return out


def _chained(future: object) -> Iterator[object]:
    """The futures of asyncio that get their result from one of an executor."""
    for callback in list(getattr(future, "_done_callbacks", ())):
        for cell in getattr(callback, "__closure__", None) or ():
            if isinstance(cell.cell_contents, asyncio.Future):
                yield cell.cell_contents


def _is_full(thread: int, frames: Mapping[int, FrameType], waiting: Collection[int]) -> bool:
    """Whether the thread belongs to an executor all of whose threads are among those that wait."""
    if (mine := _queue_of(frames.get(thread))) is None:
        return False
    queues = {ident: queue for ident, frame in frames.items() if (queue := _queue_of(frame)) is not None}
    return all(ident in waiting for ident, queue in queues.items() if queue is mine)


def _queue_of(frame: FrameType | None) -> object:
    while frame is not None:
        if frame.f_code is _LOOP:
            return frame.f_locals.get("work_queue")
        frame = frame.f_back
    return None


def _not_begun(awaited: object) -> bool:
    if isinstance(awaited, asyncio.Future):  # what it is chained to tells
        callbacks = getattr(awaited, "_callbacks", None) or ()
        cells = [cell for callback, *_ in callbacks for cell in getattr(callback, "__closure__", None) or ()]
        return any(isinstance(cell.cell_contents, Future) and _not_begun(cell.cell_contents) for cell in cells)
    return isinstance(awaited, Future) and not awaited.running() and not awaited.done()


def _may_be_awaited(work: object) -> bool:
    if isinstance(work, threading.Thread):
        return work is not threading.main_thread() and not work.name.startswith("tts-plugins")
    condition = getattr(work, "_condition", None)
    return isinstance(work, asyncio.Future) or bool(getattr(condition, "_waiters", ()))


def _joined(frame: FrameType | None) -> Sequence[object]:
    """Return the future or thread that a thread waits for."""
    depth = _DEPTH
    while frame is not None and depth and frame.f_code.co_filename in _WAITING:
        if frame.f_code in _RESULTS:
            return (frame.f_locals.get("self"),)
        frame, depth = frame.f_back, depth - 1
    return ()


def _awaited(task: asyncio.Task[object] | None) -> Sequence[object]:
    future = getattr(task, "_fut_waiter", None)
    return () if future is None else (future, *getattr(future, "_children", ()))
