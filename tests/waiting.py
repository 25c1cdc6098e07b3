"""Waits for what another task, thread or process does; the limit is for a hang, and says nothing of how fast it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT = 60.0


async def until(true: Callable[[], object], seconds: float = LIMIT) -> None:
    """Wait on this loop until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.005)


def block_until(true: Callable[[], object], seconds: float = LIMIT) -> None:
    """Wait in this thread until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)
