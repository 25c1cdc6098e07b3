"""Native outputs as plain values, and as the votes that they cast. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Set
from enum import Enum
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from tts_plugins.answers import extract, marked, remembered, without_reasons

_DEEP = 40
_LONG, _TRIES = 100_000, 200
RAW = frozenset({"raw", "parsed", "parsing_error"})
"""The keys of what `with_structured_output(include_raw=True)` gives."""


def said_in(message: BaseMessage) -> str:
    """The text of a message; up to langchain-core 0.3 `text` is a method."""
    text: Any = message.text
    return str(text) if isinstance(text, str) else str(text())


def plain(value: Any, text: Callable[[BaseMessage], Any], *, numbers: bool = False, depth: int = 0) -> Any:
    """A value as JSON can hold it, whatever it is: a lock, an array, bytes, tuples as keys.

    Args:
        text: what stands for a message.
        numbers: whether 1.0 is 1.
    """

    def inner(part: Any) -> Any:
        return plain(part, text, numbers=numbers, depth=depth + 1)

    if depth > _DEEP:
        return "…"
    if value is None or isinstance(value, bool | int) or type(value) is str:
        return value
    if isinstance(value, float):
        return int(value) if numbers and value.is_integer() else value if abs(value) < 1e308 else str(value)
    if isinstance(value, BaseMessage):
        return text(value)
    if isinstance(value, Enum):
        return inner(value.value)
    if isinstance(value, BaseModel):
        return {name: inner(part) for name, part in value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: inner(getattr(value, field.name, None)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _json(inner(key)): inner(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [inner(part) for part in value]
    if isinstance(value, Set):
        return sorted((inner(part) for part in value), key=_json)
    if hasattr(value, "tolist") and not isinstance(value, type):
        return inner(value.tolist())  # of numpy and torch, without importing them
    return _shown(value)


def as_json(value: Any, text: Callable[[BaseMessage], Any]) -> str:
    """A value as JSON, for verifiers to read."""
    return _json(plain(value, text))


def vote_of(output: Any) -> str | None:
    """What an output votes for, by what it means: 1 and 1.0 are the same, and so are equal calls in another order.

    A message with tool calls votes for the calls, whatever it says besides; a structured output with its raw message,
    for what was parsed; an object, for its value without reasons; a text, for the JSON in it or the answer it gives.
    """
    if isinstance(output, AIMessage) and output.tool_calls:
        calls = [_canonical([call["name"], call["args"]]) for call in output.tool_calls]
        return "[" + ",".join(sorted(calls)) + "]"
    if isinstance(output, BaseMessage):
        output = said_in(output)
    if isinstance(output, str):
        return _vote_of_text(output)
    if isinstance(output, Mapping) and set(output) == RAW:
        return None if output["parsed"] is None else vote_of(output["parsed"])
    return None if output is None else _canonical(output)


def _read_text(text: str) -> str | None:
    found = _json_in(text)
    return extract(text) if found is None or marked(text) else _canonical(found)


_vote_of_text = remembered(_read_text)


def _canonical(value: Any) -> str:
    return _json(without_reasons(plain(value, lambda message: vote_of(message), numbers=True)))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _json_in(text: str) -> Any:
    """The last object or array of a text that has words around it; None where there is none.

    A text may be written to keep a reader busy: only so much of it is looked at, and only so many beginnings.
    """
    if "{" not in text and "[" not in text:
        return None
    decoder, at, found, tries = json.JSONDecoder(), 0, None, _TRIES
    text = text[-_LONG:]
    while (at := min((i for i in (text.find("{", at), text.find("[", at)) if i >= 0), default=-1)) >= 0 and tries:
        tries -= 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        found, at = (value or found), end
    return found if isinstance(found, dict) or (found is not None and text.strip().startswith("[")) else None


def _shown(value: Any) -> str:
    try:
        said = str(value)
    except Exception:  # noqa: BLE001 - of a class of the user's
        said = ""
    return said if said and " at 0x" not in said else type(value).__name__  # an address says nothing
