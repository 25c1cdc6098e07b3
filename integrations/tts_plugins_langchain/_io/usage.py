"""What a provider's reply says of its tokens and of its end, in the words of every provider package. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from tts_plugins.adapters import is_whole

_ENDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason", "completionReason")
# With letters alone, in lower case: OpenAI and Ollama, Anthropic and Bedrock, Gemini, the Responses API, Mistral, xAI.
_CUT = {
    "length", "maxtokens", "maxoutputtokens", "maxcompletiontokens", "modellength", "contextlength", "reasonmaxlen",
    "reasonmaxcontext", "modelcontextwindowexceeded", "finishreasonmaxtokens", "maxlength", "tokenlimit",
}  # fmt: skip
# Of prompts that a cache has, where a provider's raw counts leave them out.
_BESIDES = ("cache_creation_input_tokens", "cache_read_input_tokens", "cacheReadInputTokens", "cacheWriteInputTokens")
_PROMPT = ("prompt_tokens", "input_tokens", "inputTokens", "prompt_token_count", "prompt_eval_count")
_COMPLETION = ("completion_tokens", "output_tokens", "outputTokens", "candidates_token_count", "eval_count")


@dataclass(frozen=True)
class Counts:
    """Tokens of one request; None where the reply does not say.

    Attributes:
        cached: those of the prompt that were read from a cache.
        usage: LangChain's form of the same, with all its details.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    usage: UsageMetadata | None = None


class UsageDetails:
    """The usage of all calls of a search with LangChain's details, such as reads from a cache or reasoning.

    Args:
        around: those of the search around, to which all of it belongs too.
    """

    def __init__(self, around: UsageDetails | None = None) -> None:
        self._around = around
        self._added: list[UsageMetadata] = []  # summed when they are looked at; most are not

    def add(self, usage: UsageMetadata | None) -> None:
        """Count a call; calls may end on several threads."""
        if usage is not None:
            self._added.append(usage)
            if self._around is not None:
                self._around.add(usage)

    def of(self, name: str) -> dict[str, int]:
        """The details of `input` or `output` tokens, without those that are nil."""
        total = cast(Mapping[str, Any], functools.reduce(add_usage, self._added, None) or {})
        found: Mapping[str, Any] = total.get(f"{name}_token_details") or {}
        return {key: value for key, value in found.items() if isinstance(value, int) and value}


def counts_of(response: LLMResult, messages: Sequence[AIMessage]) -> Counts:
    """The tokens of a request, whose choices these messages are, as far as they are messages.

    LangChain's `usage_metadata` comes first: a provider's raw counts may leave out what a cache had. Each choice
    repeats the usage of the whole request, so the largest counts, and not the sum.
    """
    known = [usage for message in messages if (usage := message.usage_metadata)]
    if known:
        most = known[0] if len(known) == 1 else max(known, key=lambda usage: _whole(usage.get("total_tokens")) or 0)
        prompt, completion = _whole(most.get("input_tokens")), _whole(most.get("output_tokens"))
        total = _whole(most.get("total_tokens"))
        if prompt is not None and completion is not None:
            completion += max(0, (total or 0) - prompt - completion)  # some count thoughts in the total only
        cached = _whole(cast(Mapping[str, Any], most.get("input_token_details") or {}).get("cache_read")) or 0
        return Counts(prompt, completion, cached, most)
    output: Mapping[str, Any] = response.llm_output or {}
    reported = output.get("token_usage") or output.get("usage")
    return _raw(cast(Mapping[str, Any], reported)) if isinstance(reported, Mapping) else Counts()


def _raw(reported: Mapping[str, Any]) -> Counts:
    prompt, completion = _first(reported, _PROMPT), _first(reported, _COMPLETION)
    if prompt is not None:
        prompt += sum(_whole(reported.get(name)) or 0 for name in _BESIDES)
        if completion is not None:
            completion += max(0, (_whole(reported.get("total_tokens")) or 0) - prompt - completion)
    return Counts(prompt, completion)


def was_cut(*said: Mapping[str, Any] | None) -> bool:
    """Whether a reply ended at a limit of tokens, by what its metadata say in any provider's words."""
    for metadata in said:
        if not metadata:
            continue
        incomplete = metadata.get("incomplete_details")
        reasons = [metadata[name] for name in _ENDS if name in metadata]
        if incomplete and isinstance(incomplete, Mapping):
            reasons.append(incomplete.get("reason"))
        for reason in reasons:
            if reason and reason != "stop" and _letters(reason) in _CUT:
                return True
    return False


def ended_by(metadata: Mapping[str, Any]) -> str:
    """Why a reply ended, as `Generation` says it: "length" if a limit cut it, else the provider's word, or "stop"."""
    if was_cut(metadata):
        return "length"
    for name in _ENDS:
        if name in metadata and isinstance(reason := metadata[name], str) and reason:
            return str(reason)
    return "stop"


def message_of(choice: Generation) -> AIMessage | None:
    """The message of a chat model's choice."""
    message = choice.message if isinstance(choice, ChatGeneration) else None
    return message if isinstance(message, AIMessage) else None


def from_cache(messages: Sequence[AIMessage]) -> bool:
    """Whether all came from LangChain's cache, whose only mark is a cost of zero; a real call has no total_cost."""
    usages = [cast(Mapping[str, Any], message.usage_metadata or {}) for message in messages]
    return bool(usages) and all([usage.get("total_cost") == 0 for usage in usages])


def _letters(reason: Any) -> str:
    return re.sub(r"[^a-z]", "", str(getattr(reason, "name", reason)).lower())


def _first(found: Mapping[str, Any], names: Iterable[str]) -> int | None:
    return next((value for name in names if (value := _whole(found.get(name))) is not None), None)


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if is_whole(value) else None
