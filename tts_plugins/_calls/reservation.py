"""Waiting for room in an account, on whichever loop one is."""

from __future__ import annotations

import asyncio
import contextlib

from tts_plugins.budget import Amount
from tts_plugins.errors import BudgetExhausted
from tts_plugins.ledger import Hold, Ledger


async def acquire(ledger: Ledger, unit: Amount, *, at_most: int = 1, within: Hold | None = None) -> Hold:
    """A hold on up to `at_most` units, waiting for others to settle where there is no room.

    Raises:
        BudgetExhausted: there is no room, and nobody in flight will make any.
    """
    if ledger.idle_queue:
        # The usual case, without a detour through the loop; where it does not fit it is asked again, and may wait.
        with contextlib.suppress(BudgetExhausted):
            return ledger.reserve(unit, at_most=at_most, within=within)
    answer = await _answer(ledger, unit, at_most, within)
    if isinstance(answer, Hold):
        return answer
    try:
        raise answer
    finally:
        del answer  # its traceback has this frame: it would refer to itself, and to all that waited for it


async def _answer(ledger: Ledger, unit: Amount, at_most: int, within: Hold | None) -> Hold | BudgetExhausted:
    """What the ledger says, when it does."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Hold | BudgetExhausted] = loop.create_future()

    def deliver(answer: object) -> None:
        if future.done():
            if isinstance(answer, Hold):
                answer.release()
        else:
            assert isinstance(answer, Hold | BudgetExhausted)
            future.set_result(answer)

    def ready(answer: object) -> None:
        try:
            loop.call_soon_threadsafe(deliver, answer)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            if isinstance(answer, Hold):
                answer.release()

    ticket = ledger.ask(unit, ready, at_most=at_most, within=within)
    try:
        while not future.done():
            # A place in a limiter may have come free or been blocked, which no ledger hears of.
            await asyncio.wait([future], timeout=1.0)
            ledger.pump()
        return future.result()
    except asyncio.CancelledError:
        ticket.cancel()
        if not future.done():
            future.cancel()
        elif isinstance(answer := future.result(), Hold):
            answer.release()
        raise
