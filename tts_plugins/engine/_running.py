"""The solves that run, held until they end.

An event loop refers to its tasks weakly. Where nobody else refers to a solve, since a framework has dropped the future
it is behind, the collector of cycles may take it in mid-run, with its calls paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from tts_plugins.errors import ConfigurationError

# By loop, so that the tasks of a loop that was closed over them can be let go. Each set is of one thread.
_running: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Refer to the running task, and so to all that it waits for, until this block ends.

    Raises:
        ConfigurationError: no asyncio loop runs here.
    """
    loop, task = running_loop(), asyncio.current_task()
    tasks = _running.get(loop)
    if tasks is None:
        for other in [other for other in list(_running) if other.is_closed()]:
            _running.pop(other, None)
        tasks = _running[loop] = set()
    if task is None or task in tasks:  # a solve awaited inside another one's task
        yield
        return
    tasks.add(task)
    try:
        yield
    finally:
        tasks.discard(task)
        if not tasks:
            _running.pop(loop, None)


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
