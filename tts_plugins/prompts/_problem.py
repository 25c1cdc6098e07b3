"""A problem as a judge reads it: its conversation, and the tools that may be called. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tts_plugins.types import Problem


def problem_text(problem: Problem) -> str:
    """The problem as a judge should read it: a conversation with its roles, else the text.

    Tools that may be called come first, and earlier calls stand where they were made, so that a judge can say whether
    the right tool is called.
    """
    tools, content = _tools(problem), problem.content
    if isinstance(content, str) or not isinstance(content, Sequence) or (len(content) == 1 and not tools):
        return "\n\n".join([*tools, problem.text])
    return "\n\n".join([*tools, *(f"{_speaker(m)}: {_turn(m)}" for m in problem.messages)])


def tools_of(problem: Problem) -> list[dict[str, Any]]:
    """The tools of a request, each as `{"name", "description", "parameters"}`; adapters keep them in its metadata.

    `parameters` is a JSON schema, empty where none is known.
    """
    request = problem.metadata.get("request")
    tools = problem.metadata.get("tools") or (request.get("tools") if isinstance(request, Mapping) else None) or ()
    return [tool_form(tool) for tool in tools]


def tool_form(tool: Any) -> dict[str, Any]:
    """One tool as `tools_of` gives it, from OpenAI's, Anthropic's or LangChain's form."""
    if not isinstance(tool, Mapping):  # LangChain's, which tells its schema apart from what is injected into its calls
        schema: Any = getattr(tool, "tool_call_schema", None)
        made = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
        tool = {**{name: getattr(tool, name, None) for name in ("name", "description", "args")}, "parameters": made}
    inner = tool.get("function")
    said: Mapping[str, Any] = inner if isinstance(inner, Mapping) else tool
    form: Any = next((said[name] for name in ("parameters", "input_schema") if said.get(name)), None)
    if form is None:
        form = {"type": "object", "properties": said["args"]} if said.get("args") else {}
    return {"name": said.get("name"), "description": said.get("description") or "", "parameters": form}


def _tools(problem: Problem) -> list[str]:
    """The tools of a request, one in each line."""
    lines = [f"- {t['name']}({_as_json(t['parameters'])}): {t['description']}".rstrip(": ") for t in tools_of(problem)]
    return ["\n".join(["Tools that may be called:", *lines])] if lines else []


def _speaker(message: Mapping[str, Any]) -> str:
    name = message.get("name") if message["role"] == "tool" else None
    return f"tool {name}" if name else str(message["role"])


def _turn(message: Mapping[str, Any]) -> str:
    said = Problem([message]).text
    calls = [
        f"calls {function.get('name')}({function.get('arguments')})"
        for call in message.get("tool_calls") or ()
        if isinstance(call, Mapping) and isinstance(function := call.get("function"), Mapping)
    ]
    return "\n".join(filter(None, [said, *calls]))


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
