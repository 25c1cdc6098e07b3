"""What was found out of a text, kept for the next time it comes up: beams share their beginnings."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from tts_plugins._calls.context import current_hold
from tts_plugins._calls.reservation import waiting_inside
from tts_plugins._concurrency import forks
from tts_plugins.ledger import Hold

T = TypeVar("T")


class Memory(Generic[T]):
    """Values by key, the least lately used forgotten first. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size, self._values, self._lock = size, OrderedDict[str, T](), forks.lock()

    def prefix(self, keys: Sequence[str]) -> list[T]:
        """The values of the first keys, as far as they are known without a gap."""
        known = list[T]()
        with self._lock:
            for key in keys:
                if key not in self._values:
                    break
                self._values.move_to_end(key)
                known.append(self._values[key])
        return known

    def put(self, key: str, value: T) -> None:
        """Keep a value."""
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)


def prefix_keys(problem: str, steps: Sequence[str]) -> list[str]:
    """A key for each beginning of a solution."""
    digest, keys = hashlib.blake2b(problem.encode("utf-8", "replace"), digest_size=16), list[str]()
    for step in steps:
        digest.update(b"\0" + step.encode("utf-8", "replace"))
        keys.append(digest.hexdigest())
    return keys


class _Search(Generic[T]):
    """A value, once it is found.

    Attributes:
        ended: set when the call that looks for it is over; None while none does.
        payer: what that call has reserved.
    """

    def __init__(self) -> None:
        self.found = list[T]()
        self.ended: asyncio.Event | None = None
        self.payer: Hold | None = None


class Once(Generic[T]):
    """What was computed once in a run, for later calls with the same key: identical candidates are judged once."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[Any, dict[str, _Search[T]]] = WeakKeyDictionary()

    async def get(self, run: Any, key: str, find: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the value for a key, and whether it was known; after an error the next call tries again."""
        search = self._runs.setdefault(run, {}).setdefault(key, _Search())
        own = current_hold()
        # Not a lock: whoever waits has to know whom it waits for, and after an error that is another call.
        while (ended := search.ended) is not None:
            with waiting_inside(None if search.payer is own else own):
                await ended.wait()
        if search.found:
            return search.found[0], True
        search.ended = ended = asyncio.Event()
        search.payer = own
        try:
            search.found.append(await find())
        finally:
            search.ended = search.payer = None
            ended.set()
        return search.found[0], False
