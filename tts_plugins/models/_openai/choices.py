"""One choice of a chat completion, as JSON or as the client's object, read with care: anything may be null. Pure."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tts_plugins._internal.error_bodies import says_wrong
from tts_plugins._internal.values import field, fields_of, listed
from tts_plugins.types import Deferred, Generation

# Every spelling of "cut at the limit": length, max_tokens, MAX_TOKENS, max_output_tokens, model_length, token_limit, …
_CUT = re.compile(r"length|max(imum)?_?(new_|output_|completion_)?tokens|token_?limit|context_window|truncat")
_ENDED = {"stop", "stop_sequence", "end_turn", "end", "eos", "eos_token", "complete", "completed", "finish_reason_stop"}
# content_filter (OpenAI, Azure), SAFETY and its kin (Gemini), refusal (Anthropic), guardrail_intervened (Bedrock)
_FILTERED = re.compile(r"filter|safety|refus|guardrail|recitation|prohibited|blocklist|spii")
# What a message holds besides what was generated: labels, and what the server's own tools have found.
_NOT_GENERATED = {"role", "type", "id", "index", "object", "name", "annotations", "citations", "signature",
                  "provider_specific_fields", "audio", "tool_call_id", "format"}  # fmt: skip
_THOUGHT = re.compile(r"reason|think|thought")


def finish_of(choice: Any) -> str:
    """Return why the choice ended: "length" if it was cut, "stop" if it ended by itself, else the server's word."""
    said = field(choice, "finish_reason")
    return said if said in ("stop", "length") else _finish(said if isinstance(said, str) else "")


@functools.lru_cache(maxsize=256)
def _finish(said: str) -> str:
    word = said.strip().lower()
    if _CUT.search(word):
        return "length"
    return "stop" if not word or word in _ENDED else said


def withheld(choice: Any) -> bool:
    """Return whether a filter of the provider says that it kept the choice, or the rest of it, back."""
    return _FILTERED.search(finish_of(choice).lower()) is not None


def error_of(choice: Any) -> object:
    """Return the error sent in place of an answer, as gateways do; None if there is none."""
    error = field(choice, "error")
    if error and says_wrong(fields_of(error) or error):
        return {"error": fields_of(error) or error}
    return {"error": "the choice ended with an error"} if finish_of(choice).lower() == "error" else None


def generation(choice: Any, *, empty: bool = False) -> Generation | None:
    """Return the choice; None if it says nothing at all although it was not cut, and may not be `empty`.

    A model that ended in its thoughts has answered with nothing, as one whose text is empty: to ask again is to pay
    again. So has one whose text a filter of the provider withheld.
    """
    message, finish = field(choice, "message"), finish_of(choice)
    if _is_plain(message) and finish in ("stop", "length") and not field(choice, "error"):
        return Generation(
            text=message["content"], output=native(message), finish_reason=finish, logprobs=_logprobs(choice),
            top_logprobs=_top(choice),
        )  # fmt: skip
    if message is None or error_of(choice) is not None:
        return None
    content = field(message, "content")
    text, refusal = _text(content), field(message, "refusal")
    calls = listed(field(message, "tool_calls")) or field(message, "function_call")
    reasoning = "" if _is_plain(message) else _reasoning(message)
    none = not isinstance(content, str | list)  # a number or a mapping carries no text, like null
    if none and not (calls or refusal or reasoning or finish == "length" or withheld(choice) or empty):
        return None
    return Generation(
        text=text or (refusal if isinstance(refusal, str) else ""),
        output=native(message),
        finish_reason=finish,
        logprobs=_logprobs(choice),
        top_logprobs=_top(choice),
        reasoning=reasoning or None,
    )


def native(message: Any) -> Any:
    """Return the message as the client's class; return a plain mapping as it is, whatever its values are."""
    mapping = type(message) is dict or isinstance(message, Mapping)
    return Deferred(_message, message) if mapping else message


def _message(fields: Mapping[str, Any]) -> Any:
    from openai.types.chat import ChatCompletionMessage

    return ChatCompletionMessage.construct(**fields)


def shown(choice: Any) -> str:
    """Return all that the choice says, to bound its tokens: text, thought, refusal, tool calls under any name."""
    message = field(choice, "message")
    if message is None:
        return ""
    if _is_plain(message):
        return str(message["content"])
    parts = {name: value for name, value in fields_of(message).items() if name not in _NOT_GENERATED}
    thoughts = [_all_of(parts.pop(name)) for name in list(parts) if _THOUGHT.search(name)]
    # Some servers send one thought under several names.
    return "".join(_all_of(value) for value in parts.values()) + max(thoughts, key=len, default="")


def _is_plain(message: Any) -> bool:
    """Return whether the message is only a text, as most are; the others are searched with more care."""
    if type(message) is not dict or type(message.get("content")) is not str:
        return False
    return not [name for name, value in message.items() if value and name not in ("role", "content")]


def _all_of(value: Any) -> str:
    return "".join(_strings(value))


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield every text inside, except labels; names of called functions count."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < 8:
        for each in value:
            yield from _strings(each, depth + 1)
    elif depth < 8 and value is not None and not isinstance(value, bool | int | float):
        inside = fields_of(value)
        called = "arguments" in inside or "input" in inside
        for name, each in inside.items():
            if name == "name" and called and isinstance(each, str):
                yield each
            elif name in ("arguments", "input") and not isinstance(each, str):
                yield json.dumps(each, ensure_ascii=False, default=str)
            elif name not in _NOT_GENERATED:
                yield from _strings(each, depth + 1)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = (part if isinstance(part, str) else field(part, "text") for part in listed(content))
    return "".join(part for part in parts if isinstance(part, str))


def _reasoning(message: Any) -> str:
    for name in ("reasoning_content", "reasoning"):
        if isinstance(value := field(message, name), str) and value:
            return value
    named = (_all_of(value) for name, value in fields_of(message).items() if _THOUGHT.search(name))
    inside = (_all_of(p) for p in listed(field(message, "content")) if _THOUGHT.search(str(field(p, "type"))))
    return max(named, key=len, default="") or "".join(inside)


def _logprobs(choice: Any) -> tuple[float, ...] | None:
    if field(choice, "logprobs") is None:
        return None
    values = [field(token, "logprob") for token in _tokens(choice)]
    return tuple(map(float, values)) if values and all(map(_is_number, values)) else None


def _top(choice: Any) -> tuple[tuple[tuple[str, float], ...], ...] | None:
    """Return each token followed by its alternatives; None if no alternatives were sent."""
    if field(choice, "logprobs") is None:
        return None
    tokens = _tokens(choice)
    if not any(listed(field(token, "top_logprobs")) for token in tokens):
        return None
    if not all(_is_number(field(token, "logprob")) for token in tokens):
        return None
    return tuple(tuple(map(_pair, (token, *filter(_scored, listed(field(token, "top_logprobs")))))) for token in tokens)


def _tokens(choice: Any) -> list[Any]:
    return listed(field(field(choice, "logprobs"), "content"))


def _pair(token: Any) -> tuple[str, float]:
    return str(field(token, "token")), float(field(token, "logprob"))


def _scored(token: Any) -> bool:
    return _is_number(field(token, "logprob"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
