"""One of something for each event loop, since connections that two live loops share hang or fail."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, NoReturn, TypeVar

from tts_plugins._concurrency import forks
from tts_plugins.errors import ConfigurationError

T = TypeVar("T")
_Close = Callable[[], Coroutine[Any, Any, object]]


class PerLoop(Generic[T]):
    """Values by loop. Each is closed with its loop, or with this object, whichever ends first."""

    def __init__(self) -> None:
        self._name = object()

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
        values = _by_loop.get(asyncio.get_running_loop())
        return None if values is None else values.get(self._name)

    async def put(self, value: T, close: _Close | None = None) -> T:
        """Keep the value for the running loop; `close` is called when it is not needed any more."""
        values = await _values_of(asyncio.get_running_loop())
        await values.close(self._name)
        values.add(self._name, value, close)
        # A failed solve's error and its frames go round in circles, and what the cycle collector finds in one is
        # torn apart before it can close its connections: the value stays out of it.
        weakref.finalize(self, _close_soon, weakref.ref(values), self._name).atexit = False
        return value

    async def close(self) -> None:
        """Close the running loop's value; those of other loops are closed when those end."""
        if (values := _by_loop.get(asyncio.get_running_loop())) is not None:
            await values.close(self._name)


class _Values:
    """What is kept for one loop, by name, until that is closed, or the loop shuts down its asynchronous generators.

    The loop is the user's, and may end at any turn. A task of ours that is started too late for the loop to cancel it
    would be destroyed while pending; so the generator, which the loop does wait for, waits for these tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self._process = loop, forks.pid
        self._kept: dict[object, tuple[Any, _Close | None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.generator = self._until_shutdown()

    def add(self, name: object, value: object, close: _Close | None) -> None:
        self._kept[name] = value, close

    def get(self, name: object) -> Any:
        entry = self._kept.get(name)
        return None if entry is None else entry[0]

    async def close(self, name: object) -> None:
        """Close one, unless that was done or is being done, or it is the parent's, whose connections are in use."""
        _, close = self._kept.pop(name, (None, None))
        if close is not None and forks.pid == self._process:
            await close()

    def close_soon(self, name: object) -> None:
        """Close one in a task; called on the loop."""
        if name in self._kept:
            task = self.loop.create_task(self.close(name))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            while self._kept or self._closing:
                for name in list(self._kept):
                    try:
                        await self.close(name)
                    except Exception as error:  # noqa: BLE001 - the others are closed all the same
                        told = {"message": "a client of tts_plugins could not be closed", "exception": error}
                        self.loop.call_exception_handler(told)
                if self._closing:
                    await asyncio.wait(self._closing)
            _by_loop.pop(self.loop, None)

    def close_without_loop(self) -> None:
        """Close all of a loop that is closed itself, as far as that goes without it."""
        for transport in list(getattr(self.loop, "_transports", {}).values()):
            with contextlib.suppress(Exception):  # what a transport does in its last step, for which it needs no loop
                transport._call_connection_lost(None)
        names, ending = list(self._kept), self.generator.aclose()
        for steps in (*map(self.close, names), ending):
            with contextlib.suppress(Exception, StopIteration):
                steps.send(None)
            with contextlib.suppress(Exception):
                steps.close()


# Until they have ended: a loop refers to its generators weakly, and most values refer to their loop.
_by_loop: dict[asyncio.AbstractEventLoop, _Values] = {}


async def _values_of(loop: asyncio.AbstractEventLoop) -> _Values:
    if (values := _by_loop.get(loop)) is None:
        _sweep()
        values = _by_loop[loop] = _Values(loop)
        await anext(values.generator)  # goes on to the yield without a turn of the loop
    return values


def _sweep() -> None:
    """Close what belongs to loops that were closed without `shutdown_asyncgens`: nothing on them can be used again."""
    for loop, values in list(_by_loop.items()):
        if loop.is_closed() and _by_loop.pop(loop, None) is not None:
            values.close_without_loop()


def _close_soon(found: weakref.ref[_Values], name: object) -> None:
    if (values := found()) is not None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and is swept
            values.loop.call_soon_threadsafe(values.close_soon, name)


_left_to_the_parent: list[object] = []


@forks.on_fork
def _after_fork() -> None:
    """A child process leaves the parent's connections alone: it neither uses nor closes them."""
    global _by_loop
    _left_to_the_parent.append(_by_loop)
    _by_loop = {}
