"""OpenAI's Responses requests, read as chat requests. Stateless: what would need a store is refused by name."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins.server.errors import APIError, bad_field
from tts_plugins.server.requests.fields import ROLES, whole_of

Json = dict[str, Any]
_SAME = ("model", "temperature", "top_p", "stream", "tts", "user", "service_tier", "safety_identifier",
         "prompt_cache_key", "parallel_tool_calls", "top_logprobs", "metadata", "seed", "stop")  # fmt: skip
_READ = ("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "store", "include",
         "truncation", "stream_options")  # fmt: skip
_STATE = "nothing is stored here; send the whole conversation as input"
_REFUSED = {"previous_response_id": _STATE, "conversation": _STATE, "prompt": _STATE, "background": _STATE,
            "max_tool_calls": "tools are called by the client"}  # fmt: skip
_ECHOED = ("instructions", "temperature", "top_p", "max_output_tokens", "tools", "tool_choice", "text", "reasoning",
           "parallel_tool_calls", "metadata", "user", "truncation")  # fmt: skip


@dataclass(frozen=True)
class ResponsesRequest:
    """A request that was read: the chat request that it means, and what the response repeats of it."""

    chat: Json
    echo: Json
    stream: bool
    name: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def responses_request(body: Any) -> ResponsesRequest:
    """Read the JSON of a request.

    Raises:
        APIError: 400, naming the field that cannot be honoured.
    """
    if not isinstance(body, dict):
        raise APIError(400, "The body must be a JSON object.", code="invalid_json")
    given = {key: value for key, value in body.items() if value is not None and value != []}
    for name, why in _REFUSED.items():
        if given.get(name):
            raise bad_field(name, f"it cannot be given; {why}", code="unsupported_parameter")
    for name in given:
        if name not in _SAME and name not in _READ and name not in _REFUSED:
            raise bad_field(name, "it is not known here", code="unknown_parameter")
    if given.get("store") is True:
        raise bad_field("store", f"it cannot be true; {_STATE}", code="unsupported_value")
    if given.get("include"):
        raise bad_field("include", "nothing of that kind is kept; leave it out", code="unsupported_parameter")
    if given.get("truncation", "disabled") != "disabled":
        raise bad_field("truncation", "nothing is cut here; leave it out", code="unsupported_value")
    chat: Json = {key: given[key] for key in _SAME if key in given}
    chat["messages"] = [*_instructions(given), *_messages(given.get("input"))]
    if "max_output_tokens" in given:
        chat["max_tokens"] = whole_of(given, "max_output_tokens")
    if "tools" in given:
        chat["tools"] = [_tool(i, tool) for i, tool in enumerate(_list("tools", given["tools"]))]
    if "tool_choice" in given:
        chat["tool_choice"] = _tool_choice(given["tool_choice"])
    chat |= _text(given.get("text")) | _reasoning(given.get("reasoning"))
    if chat.get("top_logprobs"):
        raise bad_field("top_logprobs", "log-probabilities are given by /v1/chat/completions only")
    return ResponsesRequest(chat, {key: given[key] for key in _ECHOED if key in given}, given.get("stream") is True)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise bad_field(name, "it must be a list of objects")
    return value


def _instructions(given: Mapping[str, Any]) -> list[Json]:
    text = given.get("instructions")
    if text is not None and not isinstance(text, str):
        raise bad_field("instructions", "it must be a text")
    return [{"role": "system", "content": text}] if text else []


def _messages(value: Any) -> list[Json]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise bad_field("input", "give a text, or a list of items", code="missing_required_parameter")
    out: list[Json] = []
    for i, item in enumerate(_list("input", value)):
        kind = item.get("type", "message")
        if kind == "message":
            if item.get("role") not in ROLES:
                raise bad_field(f"input[{i}].role", f"it must be one of {', '.join(ROLES)}")
            out.append({"role": item.get("role"), "content": _content(f"input[{i}]", item.get("content"))})
        elif kind == "function_call":
            call = {"id": item.get("call_id"), "type": "function",
                    "function": {"name": item.get("name"), "arguments": item.get("arguments") or ""}}  # fmt: skip
            if out and out[-1]["role"] == "assistant" and (out[-1].get("tool_calls") or not out[-1].get("content")):
                out[-1].setdefault("tool_calls", []).append(call)
            else:
                out.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            content = _content(f"input[{i}]", item.get("output"))
            out.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind != "reasoning":  # thoughts of an earlier answer, which the chat protocol does not send back
            raise bad_field(
                f"input[{i}].type", f"{str(kind)[:40]!r} is not served here; use messages and function calls"
            )
    return out


def _content(where: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value or ""
    parts: list[Json] = []
    for part in _list(f"{where}.content", value):
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text"):
            parts.append({"type": "text", "text": str(part.get("text", ""))})
        elif kind == "refusal":
            parts.append({"type": "text", "text": str(part.get("refusal", ""))})
        elif kind == "input_image" and isinstance(part.get("image_url"), str):
            image = {"url": part["image_url"], **({"detail": part["detail"]} if part.get("detail") else {})}
            parts.append({"type": "image_url", "image_url": image})
        else:
            raise bad_field(f"{where}.content", f"parts of type {str(kind)[:40]!r} are not served here")
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _tool(i: int, tool: Json) -> Json:
    if tool.get("type") != "function":
        kind = str(tool.get("type"))[:40]
        raise bad_field(
            f"tools[{i}].type", f"{kind!r} runs on OpenAI's servers; give functions", code="unsupported_value"
        )
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _tool_choice(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        return {"type": "function", "function": {"name": value.get("name")}}
    raise bad_field("tool_choice", 'use "auto", "none", "required", or a function')


def _text(value: Any) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field("text", "it must be an object")
    out: Json = {"verbosity": value["verbosity"]} if value.get("verbosity") else {}
    form = value.get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {key: form[key] for key in ("name", "description", "schema", "strict") if form.get(key) is not None}
        out["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif isinstance(form, dict) and form.get("type") == "json_object":
        out["response_format"] = {"type": "json_object"}
    elif form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        raise bad_field("text.format", 'its type must be "text", "json_object" or "json_schema"')
    return out


def _reasoning(value: Any) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field("reasoning", "it must be an object")
    if unknown := sorted(key for key, v in value.items() if v is not None and key != "effort"):
        raise bad_field(f"reasoning.{unknown[0]}", "it is not served here", code="unsupported_parameter")
    return {"reasoning_effort": value["effort"]} if value.get("effort") else {}
