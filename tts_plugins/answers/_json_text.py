"""JSON in what a model wrote: alone, in a fence, or in prose. One reader for votes and for schemas. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\S\n]*(?:\n|(?=[{\[]))(?P<body>.*?)"
    r"(?:\n?[ \t]*(?P=mark)[`~]*[ \t]*(?=\n|\Z)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_OBJECT = re.compile(r'\{\s*(?:"|\})')
# Members of an object that say how its answer was found, by their names' letters.
_REASONS = frozenset(
    "reasoning explanation rationale justification thought thoughts thinking chainofthought thoughtprocess scratchpad "
    "begründung erklärung raisonnement explication razonamiento explicación raciocínio explicação ragionamento "
    "spiegazione рассуждение объяснение 推理 解释 理由 説明".split()
)
_BESIDE_AN_ANSWER = _REASONS | frozenset("steps reason reasons analysis work working calculation confidence".split())
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
    names = {key: re.sub(r"[\W\d_]", "", str(key)).lower() for key in value}
    left_out = _REASONS if _ANSWERS.isdisjoint(names.values()) else _BESIDE_AN_ANSWER
    kept = {key: item for key, item in value.items() if names[key] not in left_out or isinstance(item, bool)}
    return {key: without_reasons(item) for key, item in (kept or value).items()}


def loads(text: str) -> Any:
    """The JSON value that the text is.

    Raises:
        ValueError: it is not JSON. NaN, Infinity and what is nested too deeply do not count as JSON either.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
