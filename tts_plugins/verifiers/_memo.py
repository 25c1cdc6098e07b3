"""What was found out of a text, kept for the next time it comes up: beams share their beginnings."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from tts_plugins._concurrency import forks

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
