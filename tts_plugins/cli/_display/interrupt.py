"""A solve to its end under Ctrl-C: the first asks for the best answer so far, the second ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from tts_plugins.cli._display.solve_view import SolveView
from tts_plugins.engine import SolveEvents
from tts_plugins.errors import SolveCancelled
from tts_plugins.types import Result


async def watch(events: SolveEvents, view: SolveView) -> Result | None:
    """Return the result; None if it was interrupted before there was any candidate.

    Raises:
        TTSError: what `solve` would raise.
        KeyboardInterrupt: Ctrl-C a second time.
    """
    task, presses = asyncio.current_task(), 0

    def interrupt() -> None:
        nonlocal presses
        presses += 1
        if presses == 1:
            events.cancel()  # first: a terminal that has closed takes no words
            view.notify("ending with the best answer so far; press Ctrl-C again to give up")
        elif task is not None:
            task.cancel()

    with _on_interrupt(interrupt):
        try:
            async for event in events:
                view.add(event)
            return events.result
        except SolveCancelled:
            return None
        except asyncio.CancelledError:
            if presses == 0:
                raise
            raise KeyboardInterrupt from None  # what is in flight is cancelled and settled when the loop closes


@contextlib.contextmanager
def _on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    # Not loop.add_signal_handler, which Windows lacks; the loop is woken by the call in either case.
    signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(action))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
