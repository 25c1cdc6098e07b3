"""State updates of the middlewares behind a search, kept apart by candidate.

LangChain collects the commands of inner middlewares in a list of the handler that it gives to the outer one. Candidates
run that handler side by side, and all of their commands would be applied. Each gets a handler with a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

_LIST = "accumulated_commands"  # of `langchain.agents.factory`; where it is not found, handlers are used as they are


class CommandsApart:
    """The handler of one model call of an agent."""

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self._handler, self._collected = handler, _collected(handler)

    def for_candidate(self) -> tuple[Callable[[Any], Any], list[Any]]:
        """A handler for one candidate, and the list that its commands are collected in."""
        own: list[Any] = []
        if self._collected is None or not isinstance(self._handler, FunctionType):
            return self._handler, own
        code, closure = self._handler.__code__, self._handler.__closure__ or ()
        names = zip(code.co_freevars, closure, strict=True)
        cells = tuple(CellType(own) if name == _LIST else cell for name, cell in names)
        made = FunctionType(code, self._handler.__globals__, code.co_name, self._handler.__defaults__, cells)
        made.__kwdefaults__ = self._handler.__kwdefaults__
        return made, own

    def apply(self, commands: list[Any]) -> None:
        """Let the agent apply these commands, and no others."""
        if self._collected is not None:
            self._collected[:] = commands


def _collected(handler: Any) -> list[Any] | None:
    if not isinstance(handler, FunctionType) or _LIST not in handler.__code__.co_freevars:
        return None
    found = (handler.__closure__ or ())[handler.__code__.co_freevars.index(_LIST)].cell_contents
    return found if isinstance(found, list) else None
