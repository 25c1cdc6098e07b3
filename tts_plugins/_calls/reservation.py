"""Waits in the graph of `_concurrency.wait_graph`, on the running loop."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import _get_running_loop
from collections.abc import Callable, Iterator
from typing import TypeVar

from tts_plugins._calls.unknown_waits import watched
from tts_plugins._concurrency.wait_graph import Wait
from tts_plugins.budget import Amount, Need
from tts_plugins.errors import BudgetExhausted
from tts_plugins.ledger import Hold, Ledger

T = TypeVar("T")


async def acquire(
    ledger: Ledger, unit: Amount | Need, *, at_most: int = 1, within: Hold | None = None, around: Hold | None = None
) -> Hold:
    """Reserve up to `at_most` units, waiting for others to settle if there is no room.

    Args:
        around: the hold of the call that waits, if it is not `within`.

    Raises:
        BudgetExhausted: there is no room, and nobody in flight will make any.
    """
    if ledger.idle_queue:
        # The usual case, without a detour through the loop; if it does not fit, it is tried again, and may wait.
        try:
            return ledger.reserve(unit, at_most=at_most, within=within)
        except BudgetExhausted:
            pass
    answer = await answered(
        lambda ready: ledger.ask(unit, ready, at_most=at_most, within=within, around=around), _release
    )
    if isinstance(answer, Hold):
        return answer
    assert isinstance(answer, BudgetExhausted)
    try:
        raise answer
    finally:
        del answer  # its traceback has this frame: it would refer to itself, and to all that waited for it


@contextlib.contextmanager
def waiting_inside(hold: Hold | None) -> Iterator[None]:
    """Count a reservation as one that ends no call while its work waits for other work of the same solve.

    Else two of them could wait for ever: that work for room, and the account for this reservation to be given back.
    """
    if hold is None or not hold.open:
        yield
        return
    wait = object()  # there may be several at once: an ensemble's verifiers share the candidate's reservation
    hold.park(wait)
    try:
        yield
    finally:
        hold.unpark(wait)


def _release(answer: object) -> None:
    if isinstance(answer, Hold):
        answer.release()


async def answered(begin: Callable[[Callable[[object], None]], Wait], give_back: Callable[[object], None]) -> object:
    """Return what a wait was answered.

    Args:
        begin: starts the wait, given the function that takes its answer, once and on any thread.
        give_back: takes an answer that nobody waits for any more, since the wait was cancelled or its loop has ended.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def deliver(answer: object) -> None:
        if future.done():
            give_back(answer)
        else:
            future.set_result(answer)

    def ready(answer: object) -> None:
        if _get_running_loop() is loop:
            deliver(answer)
            return
        try:
            loop.call_soon_threadsafe(deliver, answer)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            give_back(answer)

    wait = begin(ready)
    if future.done():
        return future.result()
    try:
        with watched(wait, loop):
            return await future
    except asyncio.CancelledError:
        wait.cancel()
        if not future.done():
            future.cancel()
        elif not future.cancelled():
            give_back(future.result())  # it came while the wait was being cancelled
        raise
