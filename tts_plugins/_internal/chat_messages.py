"""What a chat message says, its tool calls included, and how a server would stream it. Pure."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tts_plugins._internal.values import field, fields_of, listed

_PIECE = re.compile(r"\s*\S+\s*|\s+")


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


def pieces_of(content: Any) -> list[Any]:
    """Return the pieces in which a text is streamed; anything that is not a text is one piece."""
    return _PIECE.findall(content) if isinstance(content, str) else [content] if content else []


def deltas_of(choice: Mapping[str, Any], skip: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a choice, as JSON, in the parts of a stream: the role, the rest of its message, the pieces, the reason.

    Args:
        skip: characters of its content that were sent before.
    """
    message = {name: value for name, value in choice["message"].items() if value is not None}
    content, calls = message.pop("content", None), message.pop("tool_calls", None)
    role, logprobs = message.pop("role", "assistant"), listed(field(choice.get("logprobs"), "content"))
    parts: list[dict[str, Any]] = []
    if not skip:
        parts.append({"delta": {"role": role, "content": None if content is None else ""}})
    if message:  # reasoning, a refusal, a function call, or anything else the server sends
        parts.append({"delta": message})
    tokens = [field(token, "token") for token in logprobs]
    if tokens and not skip and all(isinstance(token, str) for token in tokens) and "".join(tokens) == content:
        parts += ({"delta": {"content": token["token"]}, "logprobs": {"content": [token]}} for token in logprobs)
    else:
        for i, piece in enumerate(pieces_of(content[skip:] if isinstance(content, str) else content)):
            parts.append(
                {"delta": {"content": piece}, **({"logprobs": {"content": logprobs}} if logprobs and i == 0 else {})}
            )
    if calls := listed(calls):
        parts.append({"delta": {"tool_calls": [{"index": i, **fields_of(call)} for i, call in enumerate(calls)]}})
    parts.append({"delta": {}, "finish_reason": choice.get("finish_reason")})
    yield from ({"index": choice["index"], "finish_reason": None, **part} for part in parts)
