"""What is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tts_plugins.errors import ConfigurationError
from tts_plugins.types._frozen import EMPTY

Message = Mapping[str, Any]
# This key of a problem's metadata holds fields for its request alone; models that know none ignore them.
REQUEST = "tts_plugins.request"


@dataclass(frozen=True, eq=False)
class Problem:
    """What is asked.

    Args:
        content: a text, a sequence of chat messages (`{"role", "content"}`), or whatever else the wrapped
            chain or function takes as its input.
        id: a name of your own, carried into traces and stores.
        metadata: anything that verifiers or functions of yours need besides the content.

    Raises:
        ConfigurationError: the content is empty, or is a sequence of things that are not messages.
    """

    content: Any
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        content = self.content
        if content is None or (isinstance(content, str) and not content.strip()):
            raise ConfigurationError(f"problem: the content is empty ({content!r}); ask something")
        if isinstance(content, Sequence) and not isinstance(content, str | bytes):
            if not content:
                raise ConfigurationError("problem: the list of messages is empty; give at least one message")
            _check_messages(content)

    @classmethod
    def of(cls, problem: object) -> Problem:
        """The problem itself, or one made of a text, messages, or a chain's input."""
        return problem if isinstance(problem, Problem) else cls(problem)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The content as chat messages.

        Raises:
            ConfigurationError: the content is neither a text nor messages.
        """
        if isinstance(self.content, str):
            return [{"role": "user", "content": self.content}]
        if _are_messages(self.content):
            return [dict(cast(Message, m)) for m in self.content]
        raise ConfigurationError(
            f"problem: a chat model needs a text or messages, not {type(self.content).__name__}; "
            "render it first, or wrap your own function with CallableModel"
        )

    @property
    def text(self) -> str:
        """The content as one text: that of the last message of the user where it is a conversation."""
        if isinstance(self.content, str):
            return self.content
        if _are_messages(self.content):
            users = [m for m in self.content if m["role"] == "user"] or list(self.content)
            return _content_text(users[-1].get("content"))
        return str(self.content)


def _are_messages(content: object) -> bool:
    listed = isinstance(content, Sequence) and not isinstance(content, str | bytes)
    return listed and all(isinstance(m, Mapping) and "role" in m for m in cast(Sequence[object], content))


def _check_messages(content: Sequence[object]) -> None:
    """A list that begins like messages must be messages; any other list is a chain's input."""
    if not any(isinstance(m, Mapping) and ("role" in m or "content" in m) for m in content):
        return
    for i, message in enumerate(content):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ConfigurationError(
                f"problem: message {i} is {message!r}; a message is a mapping with 'role' and 'content'"
            )


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):  # parts: [{"type": "text", "text": …}, {"type": "image_url", …}]
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping) and p.get("type") == "text")
    return "" if content is None else str(content)
