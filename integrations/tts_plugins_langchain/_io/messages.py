"""The message that a search answers with: the chosen candidate's, with what the whole search took. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from tts_plugins import Abstained, Result
from tts_plugins.errors import LowConfidence
from tts_plugins_langchain._io.usage import UsageDetails
from tts_plugins_langchain._io.values import RAW

M = TypeVar("M", bound=BaseMessage)
_ONE_CALL = ("token_usage", "usage")  # of the chosen call alone
_DETAILS: tuple[Literal["input_token_details"], Literal["output_token_details"]] = (
    "input_token_details",
    "output_token_details",
)


def chosen(result: Result, run: Any, details: UsageDetails) -> AIMessage:
    """The chosen candidate's message, without its own usage; `response_metadata["tts"]` tells of the search."""
    # An answer that was put together of steps is not one message of the model.
    given = result.output if isinstance(result.output, AIMessage) else AIMessage(str(result.text))
    if result.abstained is not None:
        given = withheld(result.abstained)
    message = summarised(given, result, details)
    changes: dict[str, Any] = {}
    if message.id is not None and message.id.startswith(("lc_run-", "run-")):
        # Named after the inner run; a stream's chunks and the whole have to have the outer one's.
        changes["id"] = None if run is None else f"lc_run--{run.run_id}"
    return message.model_copy(update=changes)


def withheld(abstained: Abstained) -> AIMessage:
    """The message of a search that does not answer: it is empty, and refuses as OpenAI's messages do."""
    return AIMessage("", additional_kwargs={"refusal": f"No answer: {abstained.reason}."})


def output_of(result: Result) -> Any:
    """What a chain gives: the chosen output, None where it is withheld.

    A structured output that comes with its raw message keeps its form: the message refuses, and nothing was parsed.
    """
    abstained, chosen = result.abstained, result.best.output
    if abstained is None or not (isinstance(chosen, Mapping) and set(chosen) == RAW):
        return result.output
    raw = summarised(withheld(abstained), result, UsageDetails())
    return {"raw": raw, "parsed": None, "parsing_error": LowConfidence.of(result)}


def summarised(message: AIMessage, result: Result, details: UsageDetails) -> AIMessage:
    """A copy that tells of the search, and no longer of the usage of its own call alone."""
    metadata = {key: value for key, value in message.response_metadata.items() if key not in _ONE_CALL}
    changes = {"usage_metadata": None, "response_metadata": {**metadata, "tts": summary(result, details)}}
    return message.model_copy(update=changes)


def summary(result: Result, details: UsageDetails) -> dict[str, Any]:
    """What a message says of its search, as JSON has it."""
    return {
        "score": result.score,
        "confidence": result.confidence,
        "agreement": result.agreement,
        **({"escalated": True} if result.escalated else {}),
        **_abstained(result),
        "candidates": len(result.candidates),
        "stopped": result.stopped,
        **({"warnings": list(result.warnings)} if result.warnings else {}),
        "seed": result.seed,
        "usage": result.usage.to_dict(),
        **{f"{name}_token_details": found for name in ("input", "output") if (found := details.of(name))},
    }


def _abstained(result: Result) -> dict[str, Any]:
    """Why there is no answer, and for a person who is to give one, what it would have been."""
    if result.abstained is None:
        return {}
    shown = {"withheld": str(result.best.text)} if result.abstained.person else {}
    return {"abstained": result.abstained.to_dict(), **shown}


def charged(message: M) -> M:
    """A copy with the whole search's usage, where the message tells of one and has no usage yet."""
    metadata = message.response_metadata.get("tts")
    if metadata is None or getattr(message, "usage_metadata", None) is not None:
        return message
    usage = metadata["usage"]
    counts = UsageMetadata(
        input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"], total_tokens=usage["tokens"]
    )
    for name in _DETAILS:
        if name in metadata:
            counts[name] = metadata[name]
    return message.model_copy(update={"usage_metadata": counts})


def chunk_of(message: AIMessage) -> AIMessageChunk:
    """The message as the only chunk of its stream."""
    names = ("content", "additional_kwargs", "response_metadata", "name", "id", "usage_metadata")
    fields: dict[str, Any] = {name: getattr(message, name) for name in (*names, "tool_calls", "invalid_tool_calls")}
    return AIMessageChunk(**fields, chunk_position="last")


def streamed(message: AIMessage, *, counted: bool) -> Iterator[ChatGenerationChunk]:
    """The message as its stream.

    Args:
        counted: whether the chunk tells of the whole search's usage to who reads the stream. What LangChain puts
            together of it, for the end of the run, does not: handlers have seen the inner calls.
    """
    chunk = ChatGenerationChunk(message=chunk_of(charged(message) if counted else message))
    yield chunk
    chunk.message = chunk.message.model_copy(update={"usage_metadata": None})


def reported(result: LLMResult) -> LLMResult:
    """A copy with the usage in it: what callbacks saw, and what a cache keeps, stay as they are."""
    generations = [
        [g.model_copy(update={"message": charged(g.message)}) if isinstance(g, ChatGeneration) else g for g in group]
        for group in result.generations
    ]
    return result.model_copy(update={"generations": generations})
