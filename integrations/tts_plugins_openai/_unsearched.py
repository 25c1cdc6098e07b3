"""What of a client no search stands behind: it passes through, with a warning where one would be looked for."""

from __future__ import annotations

import warnings
from typing import Any

_SEARCHED = ("create", "parse", "stream")


class Through:
    """Something of the client, of which other parts pass through."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name == "_target":  # not there yet: a copy is under way
            raise AttributeError(name)
        return getattr(self._target, name)


class Part(Through):
    """A part of the client on the way to its chat completions, or these themselves.

    Attributes:
        way: the names that lead from here to the chat completions.
    """

    way: tuple[str, ...] = ()

    @property
    def with_raw_response(self) -> Raw:
        """The client's own; a warning says that its chat completions are not searched."""
        return Raw(self._target.with_raw_response, self.way, "with_raw_response")

    @property
    def with_streaming_response(self) -> Raw:
        """The client's own; a warning says that its chat completions are not searched."""
        return Raw(self._target.with_streaming_response, self.way, "with_streaming_response")


class Raw(Through):
    """What gives HTTP responses instead of answers. A search has many of these, and its answer has none."""

    def __init__(self, target: Any, way: tuple[str, ...], name: str) -> None:
        super().__init__(target)
        self._way, self._name = way, name

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if self._way:
            return Raw(found, self._way[1:], self._name) if name == self._way[0] else found
        if name in _SEARCHED:
            passes(f"chat.completions.{self._name}.{name}")
        return found


def passes(what: str) -> None:
    """Say that this is not searched; `what` is what the caller of who calls this has asked for."""
    warnings.warn(
        f"scale(client): {what} goes to the client without a search, and its tokens count in no budget; call create or "
        "parse for a search. ChatOpenAI asks for raw responses: give it the bare client, and scale it with "
        "tts_plugins_langchain",
        stacklevel=3,
    )
