"""One of something for each event loop, since connections that two live loops share hang or fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, NoReturn, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from tts_plugins._concurrency import forks
from tts_plugins.errors import ConfigurationError

T = TypeVar("T")
_Guard = AsyncGenerator[None, None]
_Close = Callable[[], Awaitable[object]]


class PerLoop(Generic[T]):
    """Values by loop. Each is closed with its loop, or with this object, whichever ends first."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, _Guard | None]] = WeakKeyDictionary()
        _holders.add(self)

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "connections cannot be pickled: they belong to this process; where an object with connections is needed in "
            "another one, give a recipe of it, such as tts_plugins.engine.Factory(OpenAICompatibleModel, 'qwen3-4b')"
        )

    def __deepcopy__(self, memo: object) -> PerLoop[T]:
        return PerLoop()  # a copy of a model makes connections of its own

    @property
    def here(self) -> T | None:
        """The running loop's value, where it has one."""
        entry = self._kept.get(asyncio.get_running_loop())
        return None if entry is None else entry[0]

    async def put(self, value: T, close: _Close | None = None) -> T:
        """Keep the value for the running loop; `close` is called when it is not needed any more."""
        loop = asyncio.get_running_loop()
        _sweep()
        guard = None if close is None else _guarded(close)
        self._kept[loop] = (value, guard)
        if guard is not None:
            # A failed solve's error and its frames go round in circles, and what the cycle collector finds in one is
            # torn apart before it can close its connections: the value stays out of it.
            weakref.finalize(self, _close_on, weakref.ref(loop), guard).atexit = False
            await anext(guard)
        return value

    async def close(self) -> None:
        """Close the running loop's value; those of other loops are closed when those end."""
        entry = self._kept.pop(asyncio.get_running_loop(), None)
        if entry is not None and entry[1] is not None:
            await entry[1].aclose()


# Until they have ended: a loop refers to its generators weakly.
_guards: dict[object, tuple[_Guard, asyncio.AbstractEventLoop]] = {}
_holders: WeakSet[PerLoop[Any]] = WeakSet()


def _guarded(close: _Close) -> _Guard:
    key = object()
    guard = _guard(close, key, os.getpid())
    _guards[key] = guard, asyncio.get_running_loop()
    return guard


async def _guard(close: _Close, key: object, process: int) -> _Guard:
    # A loop that shuts down closes the asynchronous generators begun on it, so this one closes the value in time.
    try:
        yield
    finally:
        _guards.pop(key, None)
        if os.getpid() == process:  # else it is the parent's, whose connections are in use
            await close()


def _sweep() -> None:
    """Close what belongs to loops that were closed without `shutdown_asyncgens`: nothing on them can be used again."""
    for key, (guard, loop) in list(_guards.items()):
        if not loop.is_closed():
            continue
        _guards.pop(key, None)
        for transport in list(getattr(loop, "_transports", {}).values()):
            with contextlib.suppress(Exception):  # what a transport does in its last step, for which it needs no loop
                transport._call_connection_lost(None)
        ending = guard.aclose()
        with contextlib.suppress(Exception, StopIteration):  # as far as it comes without a loop
            ending.send(None)
        with contextlib.suppress(Exception):
            ending.close()


def _close_on(loop: weakref.ref[asyncio.AbstractEventLoop], guard: _Guard) -> None:
    living = loop()
    if living is not None:
        with contextlib.suppress(RuntimeError):  # it is closed, and has closed the guard
            living.call_soon_threadsafe(lambda: living.create_task(_end(guard)))


async def _end(guard: _Guard) -> None:
    await guard.aclose()


_left_to_the_parent: list[object] = []


@forks.on_fork
def _after_fork() -> None:
    """A child process leaves the parent's connections alone: it neither uses nor closes them."""
    for holder in list(_holders):
        _left_to_the_parent.append(holder._kept)
        holder._kept = WeakKeyDictionary()
