"""What a chat message says, its tool calls included. Pure."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tts_plugins._internal.values import field, listed


def text_of(message: Any, text: str) -> str:
    """Return what a message says, for votes and verifiers: its text, and then its tool calls as JSON.

    Two candidates that call the same tools with the same arguments agree.
    """
    calls = [called for call in listed(field(message, "tool_calls")) if (called := _called(call)) is not None]
    if (function := field(message, "function_call")) is not None:
        calls.append(_function(function))
    if not calls:
        return text
    made = json.dumps(calls, sort_keys=True, ensure_ascii=False, default=str)
    return f"{text}\n\n```json\n{made}\n```" if text.strip() else made


def _called(call: Any) -> dict[str, Any] | None:
    function, custom = field(call, "function"), field(call, "custom")
    if function is not None:
        return _function(function)
    return None if custom is None else {"name": field(custom, "name"), "args": field(custom, "input")}


def _function(function: Any) -> dict[str, Any]:
    """Return a call as data. Its arguments are JSON in a string; some servers send an object, null, or other text."""
    arguments = field(function, "arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    return {"name": field(function, "name"), "args": arguments}
