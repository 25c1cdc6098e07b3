"""What a worker has spent and holds open, in a file of its node that outlives the process.

The file is mapped into memory, so what was written stays after `kill -9`. The worker keeps a lock on it, which ends
with the process however that ends: whoever gets the lock knows that the worker is dead, and reads what it has spent.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from pathlib import Path

from tts_plugins.budget import Amount

# Calls, tokens, and money in nanodollars, rounded up: picodollars of a large account do not fit into 64 bits. After
# them, which start of the machine it is: what was written when a machine lost its power is not what was spent.
_FORM = struct.Struct("qqq")
_NANO = 1000


class OpenCalls:
    """The worker's side: makes the file, holds its lock, and writes into it before each request is sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w+b")
        self._file.write(_FORM.pack(0, 0, 0) + _this_start())
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), _FORM.size)
        self._numbers = memoryview(self._map).cast("q")
        _locked(self._file.fileno())

    def write(self, spent: Amount, held: Amount) -> None:
        """Say what is spent and held. A write that a kill cuts short leaves, in each number, the old or the new value.

        Either is a bound: a number rises before its request is sent, and falls after its reply has come. So each is
        stored at once, as one word of the machine; `struct` would store it byte by byte.
        """
        numbers = self._numbers
        numbers[0] = spent.calls + held.calls
        numbers[1] = spent.tokens + held.tokens
        numbers[2] = -(-(spent.picousd + held.picousd) // _NANO)

    def close(self) -> None:
        """Remove the file: there is nothing left to find out from it."""
        self.path.unlink(missing_ok=True)
        self._numbers.release()
        self._map.close()
        self._file.close()


class Alive(Exception):
    """The worker that writes the file lives."""


def used_by_dead(path: str | os.PathLike[str]) -> Amount | None:
    """Return what a dead worker had spent and held open; None without a file of this start of the machine.

    Not for the process of the worker itself, which gets its own lock.

    Raises:
        Alive: it is not dead.
    """
    try:
        file = open(path, "r+b")  # noqa: SIM115 - closed below, and not by an `open` that failed
    except OSError:
        return None
    with file:
        if not _locked(file.fileno()):
            raise Alive
        data = file.read()
    if len(data) < _FORM.size or data[_FORM.size :] != _this_start():
        return None
    calls, tokens, nano = _FORM.unpack_from(data)
    return Amount(calls, tokens, nano * _NANO)


@functools.cache
def _this_start() -> bytes:
    """Return what changes whenever the machine starts; nothing where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""


def _locked(descriptor: int) -> bool:
    """Take the lock if it is free. Of this kind, a lock is not inherited by the processes that a worker starts."""
    try:
        import fcntl
    except ImportError:  # Windows: nobody can tell, so nobody counts as dead
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
