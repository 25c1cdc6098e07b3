"""The user's functions that run now, and which of them wait for a thread, as far as their frames tell.

A function may hand work to an executor of its own and wait for it. The thread that does the work has none of the
function's context variables, so it does not know whose call it is part of. The frames show it: the waiting thread is in
`Future.result`, `concurrent.futures.wait` or `Thread.join`; the other one runs this future or thread. A coroutine that
waits is found from there by the callbacks of futures and tasks, through whatever lies between: `gather`, a `TaskGroup`,
a semaphore that another task holds.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed, wait
from concurrent.futures import thread as _executors
from contextvars import ContextVar
from types import FrameType
from typing import Any

from tts_plugins._concurrency import forks

# What a thread waits in, and the name of what it waits for there.
_JOINS = {
    Future.result.__code__: "self", Future.exception.__code__: "self", threading.Thread.join.__code__: "self",
    wait.__code__: "fs", as_completed.__code__: "fs",
}  # fmt: skip
_WAITING = (threading.__file__, sys.modules["concurrent.futures._base"].__file__)
WORK = {_executors._WorkItem.run.__code__}  # what runs a `self.future` of an executor
_LOOP = _executors._worker.__code__
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


def is_here(key: int) -> bool:
    """Return whether the task of this function is the one that runs now."""
    here = _running.get(key)  # None where a child has forgotten it
    try:
        return isinstance(here, _InTask) and here.task is asyncio.current_task()
    except RuntimeError:  # no loop runs
        return False


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
        tasks = [task for _, task, _ in functions if task is not None]
        out = {}
        for thread in threads if joins or tasks else ():
            work = list(_work_of(frames.get(thread)))
            if thread in waiting and _is_full(thread, frames, waiting):
                work += [each for awaited in joins.values() for each in awaited if _not_begun(each)]
                loops_of_tasks = {task.get_loop() for task in tasks}
                work += [t for loop in loops_of_tasks for t in asyncio.all_tasks(loop) if _awaits_its_turn(t)]
            if ends := _ends_after(work):
                blocked = {each for each, awaited in joins.items() if any(id(one) in ends for one in awaited)}
                found = [
                    context for ident, task, context in functions
                    if (ident in blocked if task is None else id(task) in ends)
                ]  # fmt: skip
                out[thread] = found, blocked
        return out
    finally:
        frames.clear()  # this frame is one of them: a circle


def _work_of(frame: FrameType | None) -> Iterator[object]:
    """Yield what others may wait for of a thread: its executor's future, and itself if the user has started it."""
    while frame is not None:
        this = frame.f_locals.get("self")
        if frame.f_code in WORK:
            yield getattr(this, "future", None)
        elif isinstance(this, threading.Thread) and not this.name.startswith("tts-plugins"):
            if this is not threading.main_thread():
                yield this
            yield from (each for each in list(frame.f_locals.values()) if isinstance(each, asyncio.Future))  # anyio's
        frame = frame.f_back


def _ends_after(work: Iterable[object]) -> set[int]:
    """Return the ids of futures, tasks and threads that do not end before these do."""
    seen, todo = dict[int, object](), list(work)
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, Future):
            todo += [
                part for callback in list(getattr(each, "_done_callbacks", ())) for part in _goes_on_with(callback)
            ]
        elif isinstance(each, asyncio.Future):
            callbacks = list(getattr(each, "_callbacks", None) or ())
            todo += [part for callback, *_ in callbacks for part in _goes_on_with(callback)]
            if isinstance(each, asyncio.Task):
                todo += _lets_in(each)
    return set(seen)


def _goes_on_with(callback: Any) -> Iterator[object]:
    """Yield the futures and tasks that a callback is for: those in its closure, and what it is bound to."""
    bound = [getattr(callback, "__self__", None)]
    if isinstance(callback, functools.partial):
        bound = [*callback.args, getattr(callback.func, "__self__", None)]
    for part in (*bound, *_cells(callback)):
        if isinstance(part, Future | asyncio.Future):
            yield part
        elif isinstance(part, asyncio.TaskGroup):
            yield getattr(part, "_parent_task", None)
        elif isinstance(part, asyncio.Queue):  # of `asyncio.as_completed`
            yield from list(getattr(part, "_getters", ()))


def _lets_in(task: asyncio.Task[Any]) -> Iterator[object]:
    """Yield the futures of who waits for a lock, a semaphore or a limiter that the task leaves at its end.

    What a suspended coroutine has entered by `async with` is on its stack, as the bound method that leaves it.
    """
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        for each in gc.get_referents(coroutine):
            if getattr(each, "__name__", None) == "__aexit__":
                held = getattr(each, "__self__", None)
                yield from list(getattr(held, "_waiters", None) or ())
                for event in list(getattr(held, "_wait_queue", {}).values()):  # anyio's limiter
                    yield from list(getattr(event, "_waiters", ()))
        coroutine = getattr(coroutine, "cr_await", None)


def _cells(callback: Any) -> Iterator[object]:
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is empty
            continue


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
    return isinstance(awaited, Future) and not awaited.running() and not awaited.done()


def _awaits_its_turn(task: asyncio.Task[object]) -> bool:
    """Whether the task awaits a future of an executor that has not begun with it."""
    callbacks = list(getattr(getattr(task, "_fut_waiter", None), "_callbacks", None) or ())
    return any(_not_begun(part) for callback, *_ in callbacks for part in _cells(callback))


def _joined(frame: FrameType | None) -> Sequence[object]:
    """Return the futures, or the thread, that a thread waits for."""
    depth = _DEPTH
    while frame is not None and depth and frame.f_code.co_filename in _WAITING:
        if (name := _JOINS.get(frame.f_code)) is not None:
            found = frame.f_locals.get(name)
            return (found,) if name == "self" else tuple(found or ())
        frame, depth = frame.f_back, depth - 1
    return ()
