"""The plain completions endpoint, asked and read in the form of chat completions. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from tts_plugins._internal.values import field, fields_of, listed

# What the endpoint knows, as the client has it; the rest goes along as extra fields, which servers may know.
_KNOWN = {
    "model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "max_tokens", "n", "presence_penalty",
    "seed", "stop", "suffix", "temperature", "top_p", "user", "extra_headers", "extra_query", "extra_body", "timeout",
    "stream", "stream_options",
}  # fmt: skip
# What a template has written into the prompt already, and what other fields hold here.
_ELSEWHERE = {
    "messages", "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "logprobs", "top_logprobs",
    "max_completion_tokens",
}  # fmt: skip


def completion_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat completion's fields as the completions endpoint takes them."""
    out = {key: value for key, value in body.items() if key in _KNOWN}
    if "max_completion_tokens" in body:
        out.setdefault("max_tokens", body["max_completion_tokens"])
    if body.get("logprobs"):
        # A number of alternatives here, of which llama.cpp takes 0 for no log-probabilities at all.
        out["logprobs"] = max(1, int(body.get("top_logprobs") or 0))
    more = {key: value for key, value in body.items() if key not in _KNOWN | _ELSEWHERE}
    if more:
        out["extra_body"] = {**more, **(body.get("extra_body") or {})}
    return out


def as_chat(response: Any) -> Any:
    """Return a text completion in the form of a chat completion; what has no choices is left as it is."""
    choices = listed(field(response, "choices"))
    if not choices:
        return response
    # An empty text ends a solution; no text at all is not an answer.
    parts = [_part(c, {"message": _message(c)}) for c in choices]
    return {"choices": parts, "usage": field(response, "usage")}


async def as_chat_chunks(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield a stream of text completions as a chat's chunks."""
    async for chunk in chunks:
        if isinstance(chunk, str) or not listed(field(chunk, "choices")):
            yield chunk
            continue
        parts = [_part(c, {"delta": _message(c) or {}}) for c in chunk["choices"]]
        yield {"choices": parts, "usage": field(chunk, "usage")}


def _message(choice: Any) -> dict[str, Any] | None:
    text = field(choice, "text")
    return {"role": "assistant", "content": text} if isinstance(text, str) else None


def _part(choice: Any, said: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in fields_of(choice).items() if name in ("index", "finish_reason", "error")}
    if "stop_reason" in fields_of(choice):  # vLLM's
        kept["stop_reason"] = field(choice, "stop_reason")
    return {**kept, "logprobs": _logprobs(field(choice, "logprobs")), **said}


def _logprobs(given: Any) -> Any:
    """Return log-probabilities as a chat's list, from OpenAI's and vLLM's parallel lists or llama.cpp's mappings."""
    if content := listed(field(given, "content")):
        return {"content": [token for token in content if field(token, "logprob") is not None]}
    tokens, values = listed(field(given, "tokens")), listed(field(given, "token_logprobs"))
    tops = listed(field(given, "top_logprobs")) or [None] * len(tokens)
    made = [
        {"token": token, "logprob": value, "top_logprobs": _tops(top)}
        for token, value, top in zip(tokens, values, tops, strict=False)
        if value is not None
    ]
    return {"content": made} if made else None


def _tops(entries: Any) -> list[dict[str, Any]]:
    pairs = fields_of(entries).items() if entries else ()
    return [{"token": token, "logprob": logprob} for token, logprob in pairs]
