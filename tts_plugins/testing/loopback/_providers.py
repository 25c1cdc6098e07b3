"""Answers in the wire formats of Anthropic, Gemini and Bedrock, for `RawServer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tts_plugins.testing.loopback._raw import RawReply, RawRequest


@dataclass(frozen=True, kw_only=True)
class ProviderReply:
    """What a provider's model says, or how the provider fails.

    Attributes:
        text: of the answer.
        tool: name and arguments of a function that the model calls.
        thinking: what it says to itself; its tokens are part of `completion`.
        cut: it came to its limit.
        prompt, completion: tokens as the provider counts them; `cached` of the prompt come from its cache.
        status: of an error, whose words are `text`.
        headers: of the answer.
    """

    text: str = ""
    tool: tuple[str, Mapping[str, Any]] | None = None
    thinking: str = ""
    cut: bool = False
    prompt: int = 10
    cached: int = 0
    completion: int = 5
    status: int = 200
    headers: Mapping[str, str] | None = None


def provider_replies(say: Callable[[RawRequest], ProviderReply]) -> Callable[[RawRequest], RawReply]:
    """Return what `RawServer` is given: it answers in the format of the path that was asked for."""

    def reply(request: RawRequest) -> RawReply:
        said = say(request)
        found = next((form for mark, form in _FORMS if mark in request.path), None)
        if found is None:
            return RawReply({"error": {"message": f"no such path: {request.path}"}}, status=404)
        made, failed = found
        body = made(said) if said.status < 400 else failed(said)
        return RawReply(body, status=said.status, headers=said.headers or {})

    return reply


def _anthropic(said: ProviderReply) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": said.thinking, "signature": "s"}] * bool(
        said.thinking
    )
    content += [{"type": "text", "text": said.text}] * bool(said.text)
    if said.tool is not None:
        content.append({"type": "tool_use", "id": "t1", "name": said.tool[0], "input": dict(said.tool[1])})
    usage = {"input_tokens": said.prompt - said.cached, "output_tokens": said.completion,
             "cache_read_input_tokens": said.cached, "cache_creation_input_tokens": 0}  # fmt: skip
    reason = "max_tokens" if said.cut else "tool_use" if said.tool else "end_turn"
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": usage}  # fmt: skip


def _anthropic_error(said: ProviderReply) -> dict[str, Any]:
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    return {"type": "error", "error": {"type": kinds.get(said.status, "api_error"), "message": said.text}}


def _gemini(said: ProviderReply) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": said.thinking, "thought": True}] * bool(said.thinking)
    parts += [{"text": said.text}] * bool(said.text)
    if said.tool is not None:
        parts.append({"functionCall": {"name": said.tool[0], "args": dict(said.tool[1])}})
    thought = len(said.thinking.split())
    usage = {"promptTokenCount": said.prompt, "candidatesTokenCount": said.completion - thought,
             "thoughtsTokenCount": thought, "cachedContentTokenCount": said.cached,
             "totalTokenCount": said.prompt + said.completion}  # fmt: skip
    reason = "MAX_TOKENS" if said.cut else "STOP"
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


def _gemini_error(said: ProviderReply) -> dict[str, Any]:
    kinds = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
    return {"error": {"code": said.status, "message": said.text, "status": kinds.get(said.status, "INTERNAL")}}


def _bedrock(said: ProviderReply) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if said.thinking:
        content.append({"reasoningContent": {"reasoningText": {"text": said.thinking, "signature": "s"}}})
    content += [{"text": said.text}] * bool(said.text)
    if said.tool is not None:
        content.append({"toolUse": {"toolUseId": "t1", "name": said.tool[0], "input": dict(said.tool[1])}})
    usage = {"inputTokens": said.prompt - said.cached, "outputTokens": said.completion,
             "totalTokens": said.prompt + said.completion, "cacheReadInputTokens": said.cached}  # fmt: skip
    reason = "max_tokens" if said.cut else "tool_use" if said.tool else "end_turn"
    return {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason, "usage": usage,
            "metrics": {"latencyMs": 1}}  # fmt: skip


def _bedrock_error(said: ProviderReply) -> dict[str, Any]:
    return {"message": said.text}


_FORMS: tuple[tuple[str, tuple[Callable[[ProviderReply], Any], Callable[[ProviderReply], Any]]], ...] = (
    ("/v1/messages", (_anthropic, _anthropic_error)),
    (":generateContent", (_gemini, _gemini_error)),
    ("/converse", (_bedrock, _bedrock_error)),
)
