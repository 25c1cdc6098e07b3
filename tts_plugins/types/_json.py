"""Text and values in the form that files, databases and requests can carry."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from tts_plugins.types.usage import Usage


def well_formed(text: str) -> str:
    """Return the text with every lone surrogate replaced by U+FFFD: no file, database or request can carry one.

    Two halves that stand side by side, as a stream may cut them, become the character that they are.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_JSON = frozenset({int, bool, type(None)})  # most of what is recorded: looked up before anything is called


def json_form(value: Any) -> Any:
    """The value as JSON has it: verifiers, servers and strategies bring what they like."""
    if type(value) in _JSON:
        return value
    if type(value) is str:
        return well_formed(value)
    if type(value) is float:
        return value if math.isfinite(value) else repr(value)
    if type(value) is Usage:
        return value.to_dict()
    # The usual types first: whether something is a Mapping is slow to find out.
    if type(value) in (list, tuple, range):
        return [item if type(item) in _JSON else json_form(item) for item in value]
    if type(value) is dict or isinstance(value, Mapping):
        return {well_formed(str(key)): item if type(item) in _JSON else json_form(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_form(item) for item in value]
    if isinstance(value, str):
        return well_formed(str(value))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return json_form(float(value))
    return repr(value)
