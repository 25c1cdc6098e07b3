"""One choice of a chat completion, read with care: content may be null, in parts, or only thought. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tts_plugins.types import Generation


def generation(choice: Any, *, empty: bool = False) -> Generation | None:
    """The choice; None where it holds neither text nor a tool call, though it was not cut, and may not be `empty`."""
    message = getattr(choice, "message", None)
    if message is None:
        return None
    text, reasoning = _text(getattr(message, "content", None)), _reasoning(message)
    finish = getattr(choice, "finish_reason", None) or "stop"
    called, content = getattr(message, "tool_calls", None), getattr(message, "content", None)
    calls = (called if isinstance(called, list) else None) or getattr(message, "function_call", None)
    refusal = getattr(message, "refusal", None)
    none = not isinstance(content, str | list)  # a number or a mapping says as little as null does
    if not text and not calls and not refusal and finish != "length" and none and not empty:
        return None
    return Generation(
        text=text or (refusal if isinstance(refusal, str) else ""),
        output=message,
        finish_reason=finish,
        logprobs=_logprobs(choice),
        top_logprobs=_top(choice),
        reasoning=reasoning,
    )


def shown(choice: Any) -> str:
    """All that the choice says, for bounding its tokens: text, thought, tool calls."""
    message = getattr(choice, "message", None)
    if message is None:
        return ""
    content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    calls = [getattr(c, "function", c) for c in getattr(message, "tool_calls", None) or []]
    calls += [getattr(message, "function_call", None) or ""]
    called = "".join(f"{getattr(function, 'name', '')}{function}" for function in calls)
    said = content if isinstance(content, str) else str(content or "")  # parts may hold more than their texts
    return said + (_reasoning(message) or "") + called + (refusal if isinstance(refusal, str) else "")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text", "")) if isinstance(part, dict) else "" for part in content)
    return ""


def _reasoning(message: Any) -> str | None:
    for name in ("reasoning_content", "reasoning"):
        value = getattr(message, name, None)
        if isinstance(value, str) and value:
            return value
    return None


def _logprobs(choice: Any) -> tuple[float, ...] | None:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    return tuple(float(token.logprob) for token in content) if content else None


def _top(choice: Any) -> tuple[tuple[tuple[str, float], ...], ...] | None:
    """For each token, itself first and then its alternatives; None where no alternatives were sent."""
    content = getattr(getattr(choice, "logprobs", None), "content", None) or ()
    if not any(getattr(token, "top_logprobs", None) for token in content):
        return None
    return tuple(
        ((token.token, float(token.logprob)), *((t.token, float(t.logprob)) for t in token.top_logprobs or ()))
        for token in content
    )
