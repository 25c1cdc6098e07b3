"""The plain completions endpoint, asked and read in the form of chat completions. Pure but for the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from tts_plugins.models._openai.stream import gather

# What the endpoint knows, as the client has it; the rest goes along as extra fields, which servers may know.
_KNOWN = {
    "model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "max_tokens", "n", "presence_penalty",
    "seed", "stop", "suffix", "temperature", "top_p", "user", "extra_headers", "extra_query", "extra_body", "timeout",
}  # fmt: skip
# What a template has written into the prompt already, and what stands in other fields here.
_ELSEWHERE = {
    "messages", "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "logprobs", "top_logprobs",
    "max_completion_tokens",
}  # fmt: skip


async def complete(create: Callable[..., Awaitable[Any]], body: Mapping[str, Any], stream: bool) -> Any:
    """The answer to a chat's body that has a `prompt` instead of `messages`, as a chat completion."""
    sent = completion_body(body)
    if not stream:
        return as_chat(await create(**sent))
    async with await create(**sent, stream=True, stream_options={"include_usage": True}) as chunks:
        told = set[int]()
        whole = await gather(_deltas(chunks, told))
    for choice in whole.choices:
        if choice.index not in told:
            choice.message = None
    return whole


def completion_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion's fields as the completions endpoint takes them."""
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
    """A text completion in the form of a chat completion; what has no choices is left as it is."""
    if not getattr(response, "choices", None):
        return response
    return SimpleNamespace(
        choices=[_part(choice, message=_message(choice)) for choice in response.choices],
        usage=getattr(response, "usage", None),
    )


async def _deltas(chunks: AsyncIterator[Any], told: set[int]) -> AsyncIterator[Any]:
    """As a chat's chunks; `told` gets the places of the choices that have a text."""
    async for chunk in chunks:
        told |= {c.index for c in chunk.choices or () if isinstance(getattr(c, "text", None), str)}
        parts = [_part(c, delta=SimpleNamespace(content=getattr(c, "text", None))) for c in chunk.choices or ()]
        yield SimpleNamespace(choices=parts, usage=getattr(chunk, "usage", None))


def _message(choice: Any) -> Any:
    from openai.types.chat import ChatCompletionMessage

    if not isinstance(getattr(choice, "text", None), str):
        return None  # an empty text ends a solution, and none at all is no answer
    return ChatCompletionMessage(role="assistant", content=choice.text)


def _part(choice: Any, **said: Any) -> Any:
    told = {"stop_reason": choice.stop_reason} if hasattr(choice, "stop_reason") else {}  # vLLM's
    return SimpleNamespace(
        index=choice.index,
        finish_reason=getattr(choice, "finish_reason", None),
        logprobs=_logprobs(getattr(choice, "logprobs", None)),
        **told,
        **said,
    )


def _logprobs(given: Any) -> Any:
    """As a chat's list: from parallel lists, as OpenAI and vLLM have them here, or from llama.cpp's mappings."""
    if (content := getattr(given, "content", None)) is not None:
        entries = [(e["token"], e["logprob"], _tops(e.get("top_logprobs") or ())) for e in content]
    else:
        tokens, values = getattr(given, "tokens", None) or (), getattr(given, "token_logprobs", None) or ()
        tops = getattr(given, "top_logprobs", None) or [None] * len(tokens)
        entries = [
            (token, value, _tops({"token": t, "logprob": p} for t, p in (top or {}).items()))
            for token, value, top in zip(tokens, values, tops, strict=False)
        ]
    made = [
        SimpleNamespace(token=token, logprob=value, top_logprobs=top)
        for token, value, top in entries
        if value is not None
    ]
    return SimpleNamespace(content=made) if made else None


def _tops(entries: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [SimpleNamespace(token=e["token"], logprob=e["logprob"]) for e in entries]
