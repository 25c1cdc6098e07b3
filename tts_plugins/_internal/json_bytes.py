"""JSON as bytes, by orjson if it is installed, else by the standard library, with the same result; and strict JSON.

Pure.
"""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

_FAST = importlib.util.find_spec("orjson") is not None
# As the OpenAI client writes it. A NaN has no form in JSON.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(value: object) -> bytes:
    """Return the value as JSON.

    Raises:
        TypeError, ValueError: some part of it has no form in JSON.
    """
    if _FAST:
        import orjson

        try:
            data = orjson.dumps(value)
        except (
            TypeError
        ):  # a key that is not a string, say, or a number of more than 64 bits: the encoder below knows them
            return _ENCODER.encode(value).encode()
        if b"null" not in data:  # orjson writes a NaN as null
            return data
    return _ENCODER.encode(value).encode()


def decode(data: bytes | str) -> Any:
    """Return the value that the JSON represents.

    Servers send what the standard's grammar does not have, and a reply that was paid for must not be lost over it: what
    orjson refuses (`Infinity`, half of a surrogate pair, a line break in a text) is read by the standard library.

    Raises:
        ValueError: it is not JSON in any reading, or nests too deeply.
    """
    if _FAST:
        import orjson

        try:
            return orjson.loads(data)
        except ValueError:
            pass
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return json.loads(text.removeprefix("\ufeff"), strict=False)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


class NotStrict(ValueError):
    """JSON that Python's parser would take, and others would not."""


def refuse_constant(name: str) -> Any:
    """Raise for NaN and Infinity."""
    raise NotStrict(f"{name} is not JSON")


def finite(text: str) -> float:
    """Return the number; raise for one that is too large for a float."""
    value = float(text)
    if not math.isfinite(value):
        raise NotStrict("a number is too large")
    return value


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its members; raise where a key stands twice: another reader may take the other one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise NotStrict("an object has the same key twice")
    return made
