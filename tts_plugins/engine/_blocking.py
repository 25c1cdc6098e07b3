"""Verifiers that block the event loop: they are reported, or run on a thread if they say that they block.

All solves on one event loop share it: those of one `asyncio.run`, and all of `solve_sync`, which run on one loop in the
background. A verifier whose `score` is a coroutine runs there too, and whatever it does without an `await` (a request
of a synchronous client, a model on the CPU, `time.sleep`) stops all of them, their deadlines included. Synchronous
functions, as `CallableVerifier` takes them, run on threads and stop nobody.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from tts_plugins._concurrency.loop_threads import submit
from tts_plugins._concurrency.thread_pool import POOL
from tts_plugins._internal.threads import in_thread
from tts_plugins.protocols import Model, Run, SetVerifier, Verifier
from tts_plugins.runs import ForwardingRun
from tts_plugins.types import Problem, Reply

if sys.platform != "win32":
    import resource

    _OF_THREAD: int | None = getattr(resource, "RUSAGE_THREAD", None)  # Linux and FreeBSD have it
else:
    _OF_THREAD = None

T = TypeVar("T")

LIMIT = 0.1  # seconds without an await before it is reported
_log = logging.getLogger(__name__)
_reported: set[str] = set()


Held = dict[str, tuple[float, float]]  # each verifier's longest time in one solve, in seconds, in all and computed


def ask_verifier(
    held: Held, verifier: Verifier | SetVerifier, method: Callable[[Run, Any], Coroutine[Any, Any, T]], run: Run,
    of: Any,
) -> Awaitable[T]:  # fmt: skip
    """Call a method of the verifier on a candidate, or on several; it returns its result."""
    if getattr(verifier, "blocking", False):
        return in_thread(_run_there, method, _RunFromThread(run, asyncio.get_running_loop()), of)
    return _timed(method(run, of), held, verifier.name)


def warnings(held: Held) -> list[str]:
    """Return the warnings for the result."""
    return [_warning(name, *seconds) for name, seconds in held.items()]


def _note(held: Held, name: str, seconds: float, computed: float) -> None:
    """Note that a verifier held the loop for so many seconds, in some of which it computed."""
    held[name] = max((seconds, computed), held.get(name, (0.0, 0.0)))
    if name not in _reported:
        _reported.add(name)
        _log.warning("%s", _warning(name, seconds, computed))


def _of_thread() -> Any:
    """Return what the system counts of this thread, unread: most of the time nobody asks."""
    return time.thread_time() if _OF_THREAD is None else resource.getrusage(_OF_THREAD)


def _since(before: Any) -> tuple[float, bool]:
    """Return the seconds that this thread has computed since then, and whether it may have waited for something."""
    now = _of_thread()
    if isinstance(now, float):
        return now - before, True  # waits are not counted here
    computed = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    return computed, now.ru_nvcsw > before.ru_nvcsw


@types.coroutine
def _timed(coroutine: Coroutine[Any, Any, T], held: Held, name: str) -> Generator[Any, Any, T]:
    """Run a coroutine, and time its steps from one `await` to the next."""
    steps = coroutine.__await__()
    step: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        started, before, given = time.monotonic(), _of_thread(), POOL.given
        try:
            waits_for = step(value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            value = None  # an error's traceback has this frame: it would refer to itself
            if (seconds := time.monotonic() - started) > LIMIT:
                computed, waited = _since(before)
                # Else other processes had the processor, or threads of this one had the interpreter's lock, which the
                # start of a thread waits for.
                if computed > LIMIT or (waited and POOL.given == given):
                    _note(held, name, seconds, computed)
        try:
            value = yield waits_for
            step = steps.send
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
            value, step = error, steps.throw


class _RunFromThread(ForwardingRun):
    """A run as code on another thread may use it: requests are made on the solve's own loop."""

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(run)
        self._loop = loop

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        asked = submit(self._loop, lambda: _reply(self._run, model, problem, n))
        return await asyncio.wrap_future(asked)


async def _reply(run: Run, model: Model, problem: Problem, n: int) -> Reply:
    return await run.generate(model, problem, n)


def _run_there(method: Callable[[Run, Any], Coroutine[Any, Any, T]], run: Run, of: Any) -> T:
    return asyncio.run(method(run, of))


def _warning(name: str, seconds: float, computed: float) -> str:
    return (
        f"{name} held the event loop for {seconds:.1f} s ({computed:.1f} s of them computing), which stopped all other "
        "solves on it and their deadlines; make it a synchronous function, which runs on a thread, or give its class "
        "blocking = True"
    )
