"""Inputs as problems, and outputs as candidates: what verifiers, votes and traces see of LangChain's objects. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, convert_to_openai_messages
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from tts_plugins import Generation, Problem
from tts_plugins.adapters import Text
from tts_plugins_langchain._io.usage import ended_by
from tts_plugins_langchain._io.values import RAW, as_json, said_in

_PLAIN: Mapping[type[BaseMessage], str] = {HumanMessage: "user", SystemMessage: "system"}
"""Messages that are nothing but their text, for which LangChain's own way takes several times as long."""


def problem_of(value: Any, **metadata: Any) -> Problem:
    """A chain's input as a problem: messages in OpenAI's form, anything else as it is, and in `metadata["input"]`."""
    metadata = {"input": value, **metadata}
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, BaseMessage):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(m, BaseMessage) for m in value):
            return Problem(openai_messages(value), metadata=metadata)
        if not value or not all(isinstance(m, Mapping) and "role" in m for m in value):
            return Problem({"input": value}, metadata=metadata)
    if value is None or (isinstance(value, str) and not value.strip()):
        return Problem({"input": value}, metadata=metadata)  # a chain may well need no input
    return Problem(value, metadata=metadata)


def generation_of(output: Any, unparsed: str | None = None) -> Generation:
    """A chain's output as a generation: its `output` is the object, its text what votes and verifiers read.

    Args:
        unparsed: why it is not what was asked for, where that is known already.
    """
    message = output if isinstance(output, AIMessage) else None
    metadata = {} if message is None else message.response_metadata
    usage = None if message is None else message.usage_metadata
    return Generation.made(
        Text.of(text_of(output), output, unparsed or unparsed_of(output)),
        output=output,
        finish_reason=ended_by(metadata),
        tokens=usage.get("output_tokens") if usage else None,
        reasoning=None if message is None else _reasoning(message),
    )


def unparsed_of(output: Any) -> str | None:
    """Why an output is not what was asked for: its tool calls or its structure cannot be read. None if it is."""
    if isinstance(output, AIMessage) and output.invalid_tool_calls:
        call = output.invalid_tool_calls[0]
        return f"the call of {call.get('name')!r} cannot be read: {call.get('error') or call.get('args')}"
    if isinstance(output, Mapping) and set(output) == RAW:
        if (error := output["parsing_error"]) is not None:
            return f"{type(error).__name__}: {error}"
        return "nothing was parsed: the model did not call the tool" if output["parsed"] is None else None
    return None


def text_of(output: Any) -> str:
    """What an output says: a text as it is, a message's content and tool calls, anything else as JSON.

    Tool calls come last, fenced.
    """
    if isinstance(output, str):
        return output
    if isinstance(output, BaseMessage):
        said = said_in(output)
        calls: list[Any] = [*(getattr(output, "tool_calls", None) or ())]
        calls += getattr(output, "invalid_tool_calls", None) or ()
        if not calls:
            return said
        made = as_json([{"name": call["name"], "args": call["args"]} for call in calls], text_of)
        return f"{said}\n\n```json\n{made}\n```" if said.strip() else made
    if isinstance(output, Mapping) and set(output) == RAW and output["parsed"] is None:
        return text_of(output["raw"])
    if isinstance(output, BaseModel | Mapping | Sequence | Set) or dataclasses.is_dataclass(output):
        return as_json(output, text_of)
    return str(output)


def openai_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages in OpenAI's form; a block that this form lacks, such as a video or a provider's own, stays as it is."""
    return [_openai_message(message) for message in messages]


def _openai_message(message: BaseMessage) -> dict[str, Any]:
    role = _PLAIN.get(type(message))
    if role is not None and isinstance(message.content, str) and not message.name and not message.additional_kwargs:
        return {"role": role, "content": message.content}
    try:
        return convert_to_openai_messages(message)
    except (ValueError, KeyError, TypeError):
        bare = convert_to_openai_messages(message.model_copy(update={"content": ""}))
        content = message.content if isinstance(message.content, str) else list(message.content)
        return {**bare, "content": content}


def _reasoning(message: AIMessage) -> str | None:
    """A model's thoughts: from the standard content blocks, which packages translate theirs into."""
    try:
        blocks = [str(b.get("reasoning") or "") for b in message.content_blocks if b.get("type") == "reasoning"]
    except Exception:  # noqa: BLE001 - a provider's translation of blocks that it does not know
        blocks = []
    return "\n\n".join(filter(None, blocks)) or message.additional_kwargs.get("reasoning_content")
