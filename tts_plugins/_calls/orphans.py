"""Solves whose loop was closed under them, by `loop.close()` or a test's fixture, while somebody still refers to them.

Nothing of theirs runs again, so what they hold would be held for ever. They are found out while something waits.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from tts_plugins._concurrency import forks

__all__ = ["give_up_orphans", "keep_in_view"]


class Solve(Protocol):
    """A solve that runs on a loop."""

    def give_up(self) -> None:
        """Charge what is in flight, and let go of what is held, without waiting for anything."""
        ...


# Without a lock, of which a `__del__` that solves might find its own thread the owner: each step is atomic.
_solves: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[Solve]] = WeakKeyDictionary()
forks.on_fork(_solves.clear)


def keep_in_view(solve: Solve) -> None:
    """Note that the solve runs on the running loop."""
    _solves.setdefault(asyncio.get_running_loop(), WeakSet()).add(solve)


def give_up_orphans() -> None:
    """Give up the solves whose loops are closed."""
    for reference in _solves.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            for solve in list(_solves.pop(loop, ())):
                solve.give_up()
