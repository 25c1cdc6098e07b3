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
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import thread as _executors
from contextvars import Context
from types import FrameType

from tts_plugins._concurrency import forks

_RESULTS = {Future.result.__code__, Future.exception.__code__, threading.Thread.join.__code__}
_WAITING = (threading.__file__, sys.modules["concurrent.futures._base"].__file__)
_WORK, _LOOP = _executors._WorkItem.run.__code__, _executors._worker.__code__
_DEPTH = 12  # frames between a wait and who called it

_numbers = itertools.count()
# Where each of them runs: on a thread, or in a task.
_running: dict[int, tuple[int | asyncio.Task[object] | None, Context]] = {}
forks.on_fork(_running.clear)


def begun(where: int | asyncio.Task[object] | None, context: Context) -> int:
    """Remember that a function of the user runs on a thread (its identity) or in a task; return a key for `ended`."""
    key = next(_numbers)
    _running[key] = where, context
    return key


def ended(key: int) -> None:
    """Forget it."""
    _running.pop(key, None)


def contexts() -> list[Context]:
    """The contexts of all functions of the user that run now."""
    return [context for _, context in list(_running.values())]


def waiting_for(thread: int, waiting: Collection[int] = ()) -> list[Context]:
    """The contexts of the functions that wait for what this thread does, or for its turn.

    Args:
        waiting: threads that wait themselves. Where these are all the threads of an executor, and this one of them, a
            function that waits for work which has not begun waits for them too: its work is queued behind theirs.
    """
    if not _running:
        return []
    frames = sys._current_frames()
    try:
        work = _work_of(frames.get(thread))
        full = thread in waiting and _is_full(thread, frames, waiting)
        if not full and not any(map(_may_be_awaited, work)):
            return []
        out = list[Context]()
        for where, context in list(_running.values()):
            if any(w in work or (full and _not_begun(w)) for w in _awaited(where, frames)):
                out.append(context)
        return out
    finally:
        frames.clear()  # this frame is one of them: a circle


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
    queues = {ident: queue for ident, frame in frames.items() if (queue := _queue_of(frame)) is not None}
    mine = queues.get(thread)
    return mine is not None and all(ident in waiting for ident, queue in queues.items() if queue is mine)


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


def _awaited(where: int | asyncio.Task[object] | None, frames: Mapping[int, FrameType]) -> Sequence[object]:
    if isinstance(where, int):
        frame, depth = frames.get(where), _DEPTH
        while frame is not None and depth and frame.f_code.co_filename in _WAITING:
            if frame.f_code in _RESULTS:
                return (frame.f_locals.get("self"),)
            frame, depth = frame.f_back, depth - 1
        return ()
    future = getattr(where, "_fut_waiter", None)
    return () if future is None else (future, *getattr(future, "_children", ()))
