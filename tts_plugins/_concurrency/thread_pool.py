"""Threads for synchronous functions: as many as help, and a queue for the rest.

A function that blocks (a request, a subprocess) needs a thread of its own; one that computes gains nothing from more
threads than there are cores, and thousands of them cost more than their work. The pool cannot tell which is which, so
it starts threads at once up to `_AT_ONCE`, and further ones only while queued functions wait and the ones that run
leave the processor idle, up to `_MOST`. What the operating system refuses to start waits in the queue instead.

Where functions take microseconds, one thread runs them all: others would only hand the interpreter's lock around, which
doubled the processor time on two cores.

No function waits for ever: whenever nothing has ended for a while and functions are queued, another thread is started,
whatever the cap (they may all wait for one that is queued); and where not a single thread can be had, `submit` raises.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, ref

from tts_plugins._concurrency import forks, running_code

T = TypeVar("T")
_Job = Callable[[], float]  # returns the seconds that its function took

_AT_ONCE = 64  # threads that start without a look at the load, and that are kept while idle
_MOST = 1024  # threads that run user code without waiting for a nested solve
_LOOK = 0.002  # seconds between looks at a queue that does not empty
_STALLED = 0.1  # seconds without an end after which a thread more than `_MOST` starts
_BUSY = 0.7  # share of one core above which more threads would only share it
_QUICK = 1e-4  # seconds: below it, waking a thread takes longer than the function
_UNKNOWN = 1.0  # seconds that a function is taken to need before any has ended


class NoThread(RuntimeError):
    """No thread can be started, and none runs that could take the function over."""


class Pool:
    """Daemon threads; an idle one is reused."""

    def __init__(self) -> None:
        self._lock = forks.lock()
        self.renew()
        forks.renew(self)

    def renew(self) -> None:
        """Begin without threads, in a child too: those of the parent do not run there."""
        self._idle: list[queue.SimpleQueue[None]] = []  # what idle threads wait for: the last one is the warmest
        self._waking = False  # one of them is on its way to what waits
        self._waiting: collections.deque[_Job] = collections.deque()
        self._threads = 0
        self.given = 0  # functions so far
        self._nested = 0  # threads whose function waits for a solve of its own: they use no processor
        self._ended = 0
        # By the loop that looks, since any of them may end: ends, processor time and time at its last look.
        self._looked: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, float, float]] = WeakKeyDictionary()
        self._last_end = 0.0
        self._typical = _UNKNOWN  # seconds that the last functions took

    def submit(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        """Run the job on a thread; `loop`, which runs here, looks after the queue while jobs wait.

        Raises:
            NoThread: there is no thread, and none can be started.
        """
        with self._lock:
            self.given += 1
            start = False
            if len(self._idle) + self._waking > len(self._waiting):
                self._waiting.append(job)
                if len(self._idle) == self._threads:
                    self._wake_one()
                    return
                if self._wake_more():
                    return
            elif start := self._threads < _AT_ONCE:
                self._threads += 1
            else:
                self._waiting.append(job)
        if start:
            if (error := self._start(job)) is None:
                return
            with self._lock:
                if not self._threads:
                    raise NoThread(
                        f"no thread can be started for a synchronous function ({error}); raise the limit of threads "
                        "or memory of this process, or lower n"
                    ) from error
                self._waiting.append(job)
                self._wake_one()
        self._watch(loop)

    def _wake_one(self) -> None:
        """Wake an idle thread if functions wait, one at a time: before it begins, it wakes the next one."""
        if self._waiting and self._idle and not self._waking:
            self._waking = True
            self._idle.pop().put(None)

    def _wake_more(self) -> bool:
        """Wake one beside those that run, and return True, unless functions are quick."""
        if more := self._typical > _QUICK:
            self._wake_one()
        return more

    def waits(self, by: int) -> None:
        """Count the threads of this pool whose functions wait for a nested solve."""
        with self._lock:
            self._nested += by

    def _start(self, job: _Job | None) -> Exception | None:
        """Start a thread, which is counted already; return why it could not be started."""
        try:
            threading.Thread(target=self._work, args=([job],), daemon=True, name="tts-plugins-worker").start()
        except (RuntimeError, MemoryError) as error:  # the operating system has no more
            with self._lock:
                self._threads -= 1
            return error
        return None

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if not self._waiting or loop in self._looked:
                return
            self._looked[loop] = (self._ended, time.process_time(), time.monotonic())
        loop.call_later(_LOOK, self._look, ref(loop))

    def _look(self, which: ref[asyncio.AbstractEventLoop]) -> None:
        """Wake or start threads for what is queued, where more of them would help."""
        if (loop := which()) is None:
            return
        now, cpu = time.monotonic(), time.process_time()
        with self._lock:
            ended, cpu_then, then = self._looked.pop(loop, (self._ended, cpu, now))
            if not self._waiting:
                return
            self._looked[loop] = (self._ended, cpu, now)
            if still := self._ended == ended:
                self._typical = _UNKNOWN  # those that run now take long
            room = min(len(self._waiting), _MOST - (self._threads - self._nested))
            if self._idle:
                more = 0
                self._wake_more()
            elif room <= 0:  # one more, whatever the cap, where the others may all wait for what is queued
                more = 1 if still and now - self._last_end > _STALLED else 0
            else:
                more = room if still or cpu - cpu_then < _BUSY * (now - then) else 0
        for _ in range(more):
            with self._lock:
                self._threads += 1
            if self._start(None) is not None:
                break
        if not loop.is_closed():
            loop.call_later(_LOOK if room > 0 else _STALLED, self._look, which)

    def _work(self, first: list[_Job | None]) -> None:
        _this_thread.pooled = True
        job = first.pop()  # a thread keeps its arguments as long as it lives, and all that they refer to
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        while True:
            if job is not None:
                took = job()
            with self._lock:
                if job is not None:
                    self._ended, self._last_end = self._ended + 1, time.monotonic()
                    self._typical += (took - self._typical) / 8
                    self._wake_more()
                job = self._waiting.popleft() if self._waiting else None
                if job is None:
                    if len(self._idle) >= _AT_ONCE:
                        self._threads -= 1
                        return
                    self._idle.append(woken)
            if job is None:
                woken.get()
                with self._lock:
                    self._waking = False
                    job = self._waiting.popleft() if self._waiting else None
                    self._wake_more()


POOL = Pool()
_this_thread = threading.local()


def on_pool() -> bool:
    """Return whether this is a thread of the pool, whose function may wait for a solve of its own."""
    return getattr(_this_thread, "pooled", False)


class PoolExecutor(ThreadPoolExecutor):
    """The pool as a loop's default executor, for `asyncio.to_thread` and `run_in_executor(None, …)`.

    The default one has a few threads. Functions that wait there for nested solves, whose functions wait for a thread of
    the same executor, would wait for ever.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the function on a thread of the pool; called on the loop that the executor is for."""
        work: _Work[T] = _Work(functools.partial(fn, *args, **kwargs))
        POOL.submit(work.run, asyncio.get_running_loop())
        return work.future


class _Work(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._call: Callable[[], T] | None = call

    def run(self) -> float:
        """Call, give the future its outcome, and return the seconds that the call took."""
        call, self._call = self._call, None
        if call is None or not self.future.set_running_or_notify_cancel():
            return 0.0
        process, started = forks.pid, time.monotonic()
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who awaits
            if forks.pid != process:
                forks.leave(error)
            self.future.set_exception(error)
        else:
            if forks.pid != process:  # as in `_internal.threads`
                forks.leave()
            self.future.set_result(result)
        return time.monotonic() - started


running_code.WORK.add(_Work.run.__code__)


def as_exception(error: BaseException) -> Exception:
    """What a function raised, in a form that ends who called it, and neither a loop nor a task of ours."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the code that waits must get it
        text = f"(its text cannot be read: {type(broken).__name__})"
    raised = RuntimeError(f"the function raised {type(error).__name__}: {text}")
    raised.__cause__ = error
    return raised
