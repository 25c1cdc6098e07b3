"""The parts of a client that are not searched: they pass through, with a warning if a caller may expect a search."""

from __future__ import annotations

import warnings
from typing import Any

SEARCHED = (("chat", "completions"), ("responses",))
_METHODS = ("create", "parse", "stream")


class Through:
    """Wraps a part of the client: attributes that are not its own are read from there, and set there.

    Attributes:
        own: names that are not the client's.
    """

    own: tuple[str, ...] = ("_target",)

    def __init__(self, target: Any) -> None:
        self._target = target

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.own:
            object.__setattr__(self, name, value)
        else:
            setattr(self._target, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_target":  # a copy is being made, and does not have it yet
            raise AttributeError(name)
        return getattr(self._target, name)


class Part(Through):
    """A part of the client that is searched, or that leads to one.

    Attributes:
        way: the names that lead from the client to here.
    """

    way: tuple[str, ...] = ()

    @property
    def with_raw_response(self) -> Raw:
        """Return the client's own; its methods warn that their answers are not searched."""
        return Raw(self._target.with_raw_response, self.way, "with_raw_response")

    @property
    def with_streaming_response(self) -> Raw:
        """Return the client's own; its methods warn that their answers are not searched."""
        return Raw(self._target.with_streaming_response, self.way, "with_streaming_response")


class Raw(Through):
    """Methods that return HTTP responses, not answers: a search has many responses, and none for its own answer."""

    own = ("_target", "_way", "_name")

    def __init__(self, target: Any, way: tuple[str, ...], name: str) -> None:
        super().__init__(target)
        self._way, self._name = way, name

    def __getattr__(self, name: str) -> Any:
        found, way = super().__getattr__(name), (*self._way, name)
        if any(way == searched[: len(way)] for searched in SEARCHED):
            return Raw(found, way, self._name)
        if self._way in SEARCHED and name in _METHODS:
            passes(f"{'.'.join(self._way)}.{self._name}.{name}")
        return found


def passes(what: str, depth: int = 3) -> None:
    """Warn that this is not searched.

    Args:
        what: the method that was called.
        depth: the number of frames from here to the caller.
    """
    warnings.warn(
        f"scale(client): {what} goes to the client without a search, and its tokens count in no budget; call create or "
        "parse for a search. ChatOpenAI asks for raw responses: give it the bare client, and scale it with "
        "tts_plugins_langchain",
        stacklevel=depth,
    )
