"""Exceptions that are not failures of a candidate, and leave a search unchanged: LangGraph's interrupts, and Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tts_plugins.adapters._all_failed import raised_for
from tts_plugins.adapters._metered import meter_here
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ModelError, TTSError


class PassedThrough(ModelError):
    """Aborts the search; the original exception is re-raised."""

    fatal = True
    charge = "nothing"


class Passing:
    """Carries the first such exception of a search from where user code raised it to the caller of the search."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def take(self, error: BaseException, where: str) -> PassedThrough | None:
        """What to raise instead, to end the search; None where it is a failure like any other."""
        if type(error) is RuntimeError and error.__cause__ is not None and not isinstance(error.__cause__, Exception):
            error = error.__cause__  # a thread wraps what is not an Exception, since that would end the loop
        return None if isinstance(error, TTSError) or not _passes(error) else self.end(error, where)

    def end(self, error: BaseException, where: str) -> PassedThrough:
        """Return what to raise instead of an error that ends the search, and that its caller gets as it is."""
        self._error = self._error or error
        return PassedThrough(f"{where}: {type(error).__name__} passes through")

    @contextmanager
    def out(self) -> Iterator[None]:
        """Around the whole search: raise what was taken as it was, and for all candidates what `raised_for` says."""
        failed: AllCandidatesFailed | ModelError | None = None
        try:
            yield
        except (AllCandidatesFailed, ModelError) as error:
            failed = error
        except TTSError as error:
            if self._error is not None:
                raise self._error from None
            if isinstance(error, BudgetExhausted) and (meter := meter_here()) is not None:
                meter.hear(error)  # of the search around this one, whose user code may swallow it
            raise
        try:
            if failed is not None and self._error is None:
                raise raised_for(failed)  # outside of `except`: it has no context then
        finally:
            del failed  # its traceback has this frame: it would refer to itself
        if self._error is not None:
            raise self._error


def _passes(error: BaseException) -> bool:
    if not isinstance(error, Exception):
        return not isinstance(error, asyncio.CancelledError | GeneratorExit)
    graph = sys.modules.get("langgraph.errors")  # nobody can raise its errors who has not imported it
    return graph is not None and isinstance(error, graph.GraphBubbleUp)
