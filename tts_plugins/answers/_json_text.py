"""JSON in what a model wrote: alone, in a fence, or in prose. One reader for votes and for schemas. Pure."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from tts_plugins._internal.json_bytes import refuse_constant
from tts_plugins.answers._markers import words

FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\S\n]*(?:\n|(?=[{\[]))(?P<body>.*?)"
    r"(?:\n?[ \t]*(?P=mark)[`~]*[ \t]*(?=\n|\Z)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_OBJECT = re.compile(r'\{\s*(?:"|\})')
_ANSWERS = frozenset(("answer", "finalanswer"))
_TRIES = 64  # objects looked for in prose: each failed one may cost the rest of the text


def read_json(text: str) -> Any:
    """The JSON value in a text without thoughts.

    Raises:
        ValueError: there is none.
    """
    text = text.replace("\r\n", "\n").strip().lstrip("\ufeff")
    first: ValueError | None = None
    for body in (text, *_fenced(text)):
        try:
            return loads(body)
        except ValueError as error:
            first = first or error
    found = objects(text)
    if found:
        return found[-1][2]
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            try:
                return loads(text[start : end + 1])
            except ValueError:
                continue
    raise first or ValueError("the text is empty")


def _fenced(text: str) -> list[str]:
    """The contents of fenced blocks, the last one first; a block that is never closed runs to the end."""
    if "```" not in text and "~~~" not in text:
        return []
    return [match["body"] for match in FENCE.finditer(text)][::-1]


def objects(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """The JSON objects in a text with their places, outermost only."""
    found, at = list[tuple[int, int, dict[str, Any]]](), 0
    for _ in range(_TRIES):
        start = _OBJECT.search(text, at)
        if start is None:
            break
        try:
            value, at = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            at = start.start() + 1
            continue
        if value:
            found.append((start.start(), at, value))
    return found


def without_reasons(value: Any) -> Any:
    """The value without the members of objects that say how an answer was found: no two are worded alike.

    Beside a member that is named as the answer, these are steps, an analysis and a confidence too.
    """
    if isinstance(value, list):
        return [without_reasons(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {key: _letters(str(key)) for key in value}
    left_out = _names("reasons")
    if not _ANSWERS.isdisjoint(names.values()):
        left_out |= _names("beside")
    kept = {key: item for key, item in value.items() if names[key] not in left_out or isinstance(item, bool)}
    return {key: without_reasons(item) for key, item in (kept or value).items()}


@cache
def _names(kind: str) -> frozenset[str]:
    return frozenset(_letters(word) for listed in words()[kind].values() for word in listed)


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name).lower()


def loads(text: str) -> Any:
    """The JSON value that the text is.

    Raises:
        ValueError: it is not JSON. NaN, Infinity and what is nested too deeply do not count as JSON either.
    """
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)
