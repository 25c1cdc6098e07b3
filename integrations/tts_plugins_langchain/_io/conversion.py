"""Inputs as problems, and outputs as candidates: what verifiers, votes and traces see of LangChain's objects. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from tts_plugins import Generation, Problem
from tts_plugins.adapters import Text
from tts_plugins_langchain._io.usage import ended_by


def problem_of(value: Any, **metadata: Any) -> Problem:
    """A chain's input as a problem: messages in OpenAI's form, anything else as it is, and in `metadata["input"]`."""
    metadata = {"input": value, **metadata}
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if isinstance(value, BaseMessage):
        value = [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(m, BaseMessage) for m in value):
            return Problem(convert_to_openai_messages(list(value)), metadata=metadata)
        if not value or not all(isinstance(m, Mapping) and "role" in m for m in value):
            return Problem({"input": value}, metadata=metadata)
    if value is None or (isinstance(value, str) and not value.strip()):
        return Problem({"input": value}, metadata=metadata)  # a chain may well need no input
    return Problem(value, metadata=metadata)


def generation_of(output: Any) -> Generation:
    """A chain's output as a generation: its `output` is the object, its text what votes and verifiers read."""
    message = output if isinstance(output, AIMessage) else None
    told = {} if message is None else message.response_metadata
    usage = None if message is None else message.usage_metadata
    return Generation(
        text=Text.of(text_of(output), output),
        output=output,
        finish_reason=ended_by(told),
        tokens=usage.get("output_tokens") if usage else None,
        reasoning=None if message is None else message.additional_kwargs.get("reasoning_content"),
    )


def text_of(output: Any) -> str:
    """What an output says: a text as it is, a message's content and tool calls, anything else as JSON.

    Tool calls come last, fenced, so that two candidates that make the same calls (names and arguments) agree.
    """
    if isinstance(output, str):
        return output
    if isinstance(output, BaseMessage):
        said, calls = str(output.text), getattr(output, "tool_calls", None)
        if not calls:
            return said
        made = _json([{"name": call["name"], "args": call["args"]} for call in calls])
        return f"{said}\n\n```json\n{made}\n```" if said.strip() else made
    if isinstance(output, BaseModel | Mapping | Sequence) or dataclasses.is_dataclass(output):
        return _json(output)
    return str(output)


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return text_of(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
