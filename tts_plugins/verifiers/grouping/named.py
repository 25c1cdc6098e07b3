"""Ways to read an answer, by the names that a command line and a file of profiles have for them."""

from __future__ import annotations

import re
from typing import Any

from tts_plugins.answers import Answer, AnswerKey, extract, normalise, read_json, without_thoughts
from tts_plugins.errors import ConfigurationError
from tts_plugins.verifiers._limited import ends_soon, last_match, limited_here
from tts_plugins.verifiers.grouping.math_groups import MathGroups

_SECONDS = 2.0  # for a pattern that may backtrack without end; a reply on which it does has no answer
_LETTER = re.compile(r"[A-Z]")


def named_answer(text: str, owner: str) -> AnswerKey:
    """The way to read an answer that a text names.

    `extract` is the usual one, `math` merges equal formulas (`MathGroups`), `choice` takes the letter of a choice only,
    `text` all of the text outside of thoughts, `/a/b` is a JSON pointer into the JSON of a reply, and `regex:…` a
    pattern, of which the first group of the last match counts, or all of it.

    Raises:
        ConfigurationError: it is none of these. The message begins with `owner`.
    """
    if text.startswith("/"):
        return lambda reply: _pointed(_plain(reply), text)
    if text.startswith("regex:"):
        try:
            pattern = re.compile(text.removeprefix("regex:"))
        except re.error as error:
            raise ConfigurationError(f"{owner}={text!r} is not a regular expression: {error}") from error
        return _LastMatch(pattern)
    if text == "math":
        return MathGroups()
    ways: dict[str, AnswerKey] = {"extract": extract, "choice": _choice, "text": _text}
    if text not in ways:
        raise ConfigurationError(
            f"{owner}={text!r} is not known; use extract, math, choice, text, /a/json/pointer, regex:…, or "
            "python:file.py:function"
        )
    return ways[text]


def _plain(reply: object) -> str:
    """The text of what a wrapper hands over: a text, a message, or another object."""
    content = getattr(reply, "content", reply)
    return content if isinstance(content, str) else str(content)


def _choice(reply: str) -> str | None:
    found = extract(_plain(reply))
    return found if found is not None and _LETTER.fullmatch(found) else None


def _text(reply: str) -> str | None:
    said = " ".join(without_thoughts(_plain(reply)).split())
    return Answer(said.casefold(), said) if said else None


class _LastMatch:
    """What a pattern finds last. One that may backtrack takes up to two seconds, and so is asked on a thread."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern, self.slow = pattern, not ends_soon(pattern, " " * 10_000)

    def __call__(self, reply: object) -> str | None:
        pattern, text = self._pattern, without_thoughts(_plain(reply))
        if ends_soon(pattern, text):
            found = last_match(pattern, text)
        else:
            request = {"do": "last", "pattern": pattern.pattern, "flags": pattern.flags, "text": text}
            found = (limited_here(request, _SECONDS) or {}).get("found")
        return Answer(normalise(found) or found, found) if found else None


def _pointed(reply: str, pointer: str) -> str | None:
    """The value at a JSON pointer (RFC 6901); None where there is none."""
    try:
        value: Any = read_json(reply)
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
    except (ValueError, LookupError, TypeError):
        return None
    if value is None:
        return None
    written = value if isinstance(value, str) else repr(value)
    return Answer(normalise(written) or written, written)
