"""The solves that run, held until they end, and given up where their loop was closed under them.

An event loop refers to its tasks weakly. Where nobody else refers to a solve, since a framework has dropped the future
it is behind, the collector of cycles may take it in mid-run, with its calls paid for.

Where a loop was closed over a solve, by `loop.close()` or a test's fixture, nothing of it runs again, and what it holds
would be held for ever. It is found out while something else waits, or when a solve begins on another loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import Holder
from tts_plugins.errors import ConfigurationError

__all__ = ["begun", "by_thread", "ended", "give_up_orphans", "is_any_on", "running_loop"]


class Solve(Protocol):
    """A solve that runs on a loop."""

    def holders(self) -> Iterable[Holder]:
        """What its calls hold, and all that this is drawn from."""
        ...

    def give_up(self) -> None:
        """Charge what is in flight, and let go of what is held, without waiting for anything."""
        ...


# By loop, each with its task. Without a lock, of which a `__del__` that solves might find its own thread the owner:
# each step is atomic, and the solves of a loop are those of one thread.
_running: dict[asyncio.AbstractEventLoop, dict[Solve, asyncio.Task[Any] | None]] = {}
_threads: dict[asyncio.AbstractEventLoop, int] = {}
_left_to_the_parent: list[object] = []


@forks.on_fork
def _after_fork() -> None:
    global _running
    _left_to_the_parent.append(_running)  # neither given up nor collected: they go on there
    _running = {}
    _threads.clear()


def begun(solve: Solve) -> asyncio.AbstractEventLoop:
    """Refer to the solve and to the running task, and so to all that it waits for, until it has `ended`.

    Returns:
        The loop that runs here.

    Raises:
        ConfigurationError: no asyncio loop runs here.
    """
    loop = running_loop()
    solves = _running.get(loop)
    if solves is None:
        give_up_orphans()
        solves = _running[loop] = {}
    solves[solve], _threads[loop] = asyncio.current_task(), threading.get_ident()
    return loop


def ended(solve: Solve, loop: asyncio.AbstractEventLoop) -> None:
    """Let go of the solve, which ran on this loop."""
    solves = _running.get(loop)
    if solves is not None:
        solves.pop(solve, None)
        if not solves:
            _forget(loop)


def is_any_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a solve runs on this loop."""
    return loop in _running


def by_thread() -> dict[int, list[Solve]]:
    """Return the solves that run on the loops of each thread."""
    out = dict[int, list[Solve]]()
    for loop, thread in _threads.copy().items():
        out.setdefault(thread, []).extend(list(_running.get(loop, ())))
    return out


def give_up_orphans() -> None:
    """Give up the solves whose loops are closed."""
    for loop in list(_running):
        if loop.is_closed():
            for solve in list(_forget(loop)):
                solve.give_up()


def _forget(loop: asyncio.AbstractEventLoop) -> Iterable[Solve]:
    _threads.pop(loop, None)
    return _running.pop(loop, ())


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs here.

    Raises:
        ConfigurationError: none does.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "solve needs a running asyncio event loop, and there is none here. Under trio or in synchronous code, call "
            "solve_sync: in trio, await trio.to_thread.run_sync(lambda: solve_sync(problem, model=model))"
        ) from None
