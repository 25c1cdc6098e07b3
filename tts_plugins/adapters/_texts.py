"""Native objects as the texts that votes and verifiers read. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from tts_plugins.answers import AnswerKey, extract
from tts_plugins.errors import VerifierError


class Unparsed(VerifierError):
    """A candidate's output could not be read as what was requested. It fails, and a revision is shown the reason."""


class Text(str):
    """A candidate's text, with the native object that it is the text of.

    Attributes:
        unparsed: why the object is not what was asked for; None if it is.
        blank: whether the object says nothing; None if `selection.has_content` is to find out.
    """

    native: Any = None
    unparsed: str | None = None
    blank: bool | None = None

    @classmethod
    def of(cls, text: str, native: Any, unparsed: str | None = None, *, blank: bool | None = None) -> Self:
        """The text of an object."""
        made = cls(text)
        made.native, made.unparsed, made.blank = native, unparsed, blank
        return made


def parsed_only(key: AnswerKey) -> AnswerKey:
    """The key, which raises `Unparsed` for a text whose object could not be read."""

    def checked(text: str) -> str | None:
        if isinstance(text, Text) and text.unparsed is not None:
            raise Unparsed(text.unparsed)
        return key(text)

    return as_key(checked, key)


def answer_key(answer: Callable[[Any], str | None] | None) -> AnswerKey:
    """The key that `solve` takes, for one that reads native outputs; the usual one where there is none.

    A key that compares answers by meaning (`MathGroups`, `SemanticGroups`) reads the text, not the native output.
    """
    if answer is None:
        return extract

    def key(text: str) -> str | None:
        return answer(text.native if isinstance(text, Text) and not hasattr(answer, "relate") else text)

    return as_key(key, answer)


def as_key(wrapped: AnswerKey, key: Callable[[Any], str | None]) -> AnswerKey:
    """Return `wrapped`, which the engine takes for `key` itself: it runs where that may, and compares as that does."""
    wrapped.__module__ = str(getattr(key, "__module__", ""))
    for name in ("slow", "relate"):
        if hasattr(key, name):
            setattr(wrapped, name, getattr(key, name))
    return wrapped
