"""Whether a message has the form that its model was asked for: of the tools' arguments, or of a schema. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage
from pydantic import BaseModel

from tts_plugins.answers import read_json
from tts_plugins.prompts import tool_form
from tts_plugins_langchain._io.values import said_in

FORMS = ("tools", "response_format")
"""The arguments of a chat model that ask for a form."""
_DEEP = 20


class AskedForm:
    """The form that one search asks for.

    Args:
        asked: what the model is given, with `FORMS` among it.
    """

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked

    @cached_property
    def _tools(self) -> Mapping[str, Any]:
        return {form["name"]: form["parameters"] for form in map(tool_form, self._asked["tools"])}

    @cached_property
    def _answer(self) -> Mapping[str, Any] | None:
        return _schema(self._asked.get("response_format"))

    def misfit(self, output: Any) -> str | None:
        """Why a message is not of this form; None if it is, or nobody can tell.

        It is lenient where tools and parsers are: a number may be a text of one, and what a schema does not say is
        allowed. A tool that is not listed may be the provider's own, or stand for a schema.
        """
        if not isinstance(output, AIMessage):
            return None
        if output.tool_calls:
            return self._misfit_call(output) if self._asked.get("tools") else None
        if self._answer is None:
            return None
        try:
            value = read_json(said_in(output))
        except ValueError as error:
            return f"the answer is not JSON: {error}"
        return _wrong(value, self._answer, self._answer, "the answer")

    def _misfit_call(self, output: AIMessage) -> str | None:
        for call in output.tool_calls:
            schema = self._tools.get(call["name"])
            if isinstance(schema, Mapping) and (wrong := _wrong(call["args"], schema, schema, "arguments")) is not None:
                return f"the call of {call['name']!r} does not fit the tool: {wrong}"
        return None


def _schema(form: Any) -> Mapping[str, Any] | None:
    """The JSON schema of a `response_format`; empty for any object; None for texts, and for what is not known."""
    if isinstance(form, type) and issubclass(form, BaseModel):
        return form.model_json_schema()
    if not isinstance(form, Mapping):
        return None
    if form.get("type") == "json_object":
        return {"type": "object"}
    schema = (form.get("json_schema") or {}).get("schema") if form.get("type") == "json_schema" else None
    return schema if isinstance(schema, Mapping) else None


def _wrong(value: Any, schema: Any, root: Mapping[str, Any], where: str, depth: int = 0) -> str | None:
    """What is wrong with a value, by the part of JSON Schema that says what a value is."""
    schema = _resolved(schema, root)
    if schema is None or depth > _DEEP:
        return None
    for name in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(name), list) and choices:
            found = [_wrong(value, choice, root, where, depth + 1) for choice in choices]
            if all(found):
                return found[0]
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds and not any(_is_a(value, kind) for kind in kinds):
        return f"{where} is {value!r:.60}, not of type {' or '.join(map(str, kinds))}"
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(allowed, list) and str(value) not in map(str, allowed):
        return f"{where} is {value!r:.60}, not one of {allowed!r:.100}"
    if isinstance(value, Mapping):
        return _wrong_member(value, schema, root, where, depth)
    if isinstance(value, list) and isinstance(items := schema.get("items"), Mapping):
        wrong = (_wrong(each, items, root, f"{where}[{i}]", depth + 1) for i, each in enumerate(value))
        return next(filter(None, wrong), None)
    return None


def _wrong_member(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], where: str, depth: int
) -> str | None:
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            return f"{where} has no {name!r}"
    members = schema.get("properties")
    if not isinstance(members, Mapping):
        return None
    found = (_wrong(value[n], inner, root, f"{where}.{n}", depth + 1) for n, inner in members.items() if n in value)
    return next(filter(None, found), None)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema, or what it refers to within the same document."""
    for _ in range(_DEEP):
        if not isinstance(schema, Mapping):
            return None
        reference = schema.get("$ref")
        if reference is None:
            return schema
        schema = root
        for part in str(reference).removeprefix("#/").split("/"):
            schema = schema.get(part) if isinstance(schema, Mapping) else None
    return None


def _is_a(value: Any, kind: Any) -> bool:
    if kind in ("integer", "number"):
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return False
        return isinstance(value, int | float) and (kind == "number" or float(value).is_integer())
    if kind == "boolean":
        return isinstance(value, bool) or str(value).lower() in ("true", "false", "0", "1", "yes", "no", "on", "off")
    classes: dict[str, Any] = {"string": str, "array": list, "object": Mapping, "null": type(None)}
    return kind not in classes or isinstance(value, classes[kind])
