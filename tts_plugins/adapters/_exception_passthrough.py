"""What is nobody's failure and has to leave a search as it is: an interrupt of LangGraph, or of the user."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tts_plugins.adapters._all_failed import raised_for
from tts_plugins.adapters._charge import causes_of
from tts_plugins.errors import AllCandidatesFailed, ModelError, TTSError


def cause_for(found: BaseException, error: BaseException) -> BaseException | None:
    """The cause of what is raised in place of an error: that error, unless it goes back to the same, or is it.

    A budget's refusal is raised again for what was made of it on its way; as a cause of itself, whoever follows causes
    would follow it for ever.
    """
    return found.__cause__ if any(cause is found for cause in causes_of(error)) else error


class PassedThrough(ModelError):
    """Ends the search at once; what stands behind it is raised in its place."""

    fatal = True
    charge = "nothing"


class Passing:
    """The first such error of one search, from where user code raised it to where the search was called."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def take(self, error: BaseException, where: str) -> PassedThrough | None:
        """What to raise instead, to end the search; None where it is a failure like any other."""
        if isinstance(error, TTSError) or not _passes(error):
            return None
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
        except TTSError:
            if self._error is not None:
                raise self._error from None
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
