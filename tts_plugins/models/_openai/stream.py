"""A streamed completion, gathered into what the same request would have brought in one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from tts_plugins.errors import MalformedResponse


async def gather(chunks: AsyncIterator[Any]) -> Any:
    """An object like `ChatCompletion`: choices with messages, and the usage.

    llama.cpp reports a usage for each choice as it ends; those are summed.

    Raises:
        MalformedResponse: the stream ended before every choice did.
    """
    choices: dict[int, _Choice] = {}
    usages: list[Any] = []
    async for chunk in chunks:
        for part in getattr(chunk, "choices", None) or ():
            choices.setdefault(part.index, _Choice()).add(part)
        if getattr(chunk, "usage", None) is not None:
            usages.append(chunk.usage)
    if any(c.finish_reason is None for c in choices.values()):
        raise MalformedResponse("the stream ended before its choices did; the connection may have been cut")
    return SimpleNamespace(choices=[choices[i].whole(i) for i in sorted(choices)], usage=_usage(usages, len(choices)))


_UNSAID = object()


class _Choice:
    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.stop_reason: Any = _UNSAID
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, part: Any) -> None:
        delta = part.delta
        for name, into in (
            ("content", self._content),
            ("reasoning_content", self._reasoning),
            ("refusal", self._refusal),
        ):
            if isinstance(text := getattr(delta, name, None), str):
                into.append(text)
        self._logprobs += getattr(getattr(part, "logprobs", None), "content", None) or []
        for call in getattr(delta, "tool_calls", None) or ():
            self._add_call(call)
        self.finish_reason = getattr(part, "finish_reason", None) or self.finish_reason
        if self.finish_reason and hasattr(part, "stop_reason"):  # vLLM's: which stop string it was, None for none
            self.stop_reason = part.stop_reason

    def _add_call(self, call: Any) -> None:
        # Arguments come in pieces; the id and the name in the first of them only.
        made = self._calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
        made["id"] = getattr(call, "id", None) or made["id"]
        function = getattr(call, "function", None)
        made["name"] += getattr(function, "name", None) or ""
        made["arguments"] += getattr(function, "arguments", None) or ""

    def whole(self, index: int) -> Any:
        from openai.types.chat import ChatCompletionMessage

        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._content) if self._content or not self._calls else None,
        }
        if self._calls:
            message["tool_calls"] = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
                for _, c in sorted(self._calls.items())
            ]
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        return SimpleNamespace(
            index=index,
            finish_reason=self.finish_reason,
            **({} if self.stop_reason is _UNSAID else {"stop_reason": self.stop_reason}),
            message=ChatCompletionMessage.model_validate(message),
            logprobs=SimpleNamespace(content=self._logprobs) if self._logprobs else None,
        )


def _usage(usages: list[Any], choices: int) -> Any:
    if not usages:
        return None
    if len(usages) != choices or choices == 1:
        return usages[-1]
    try:
        completion = sum(u.completion_tokens for u in usages)
    except TypeError:  # not numbers: what is wrong with one is wrong with all
        return None
    # The prompt is computed for one of them, and then copied; only that one says what was not cached.
    first = min(usages, key=_cached)
    return SimpleNamespace(
        prompt_tokens=first.prompt_tokens,
        completion_tokens=completion,
        every_choice=True,
        prompt_tokens_details=getattr(first, "prompt_tokens_details", None),
    )


def _cached(usage: Any) -> int:
    cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
    return cached if isinstance(cached, int) else 0
