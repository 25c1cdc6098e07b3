"""Native objects as the texts that votes and verifiers read. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from tts_plugins.answers import AnswerKey, extract


class Text(str):
    """A candidate's text, with the native object that it is the text of."""

    native: Any = None

    @classmethod
    def of(cls, text: str, native: Any) -> Self:
        """The text of an object."""
        made = cls(text)
        made.native = native
        return made


def answer_key(answer: Callable[[Any], str | None] | None) -> AnswerKey:
    """The key that `solve` takes, for one that reads native outputs; the usual one where there is none."""
    if answer is None:
        return extract

    def key(text: str) -> str | None:
        return answer(text.native if isinstance(text, Text) else text)

    key.__module__ = str(getattr(answer, "__module__", ""))  # whose it is, says where it may run
    return key
