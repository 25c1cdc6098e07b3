"""What of a client no search stands behind: it passes through, or is refused where a search would be lost unseen."""

from __future__ import annotations

from typing import Any, NoReturn

from tts_plugins.errors import ConfigurationError

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
        """The client's own, but for chat completions: these are refused."""
        return Raw(self._target.with_raw_response, self.way, "with_raw_response")

    @property
    def with_streaming_response(self) -> Raw:
        """The client's own, but for chat completions: these are refused."""
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
        return _Refusal(f"chat.completions.{self._name}.{name}") if name in _SEARCHED else found


class _Refusal:
    def __init__(self, what: str) -> None:
        self._what = what

    def __call__(self, *_: object, **__: object) -> NoReturn:
        refuse(self._what)


def refuse(what: str) -> NoReturn:
    """Say that this cannot be searched.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"scale(client): {what} would go to the client without a search; call create or parse of the scaled client, "
        "or this of the client that you passed to scale. ChatOpenAI asks for raw responses: give it the bare client, "
        "and scale it with tts_plugins_langchain"
    )
