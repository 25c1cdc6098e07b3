"""What votes of a language model's output: the last field, read as the program's own adapter will read it."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any, get_args

import dspy

from tts_plugins.answers import extract
from tts_plugins_dspy._calls.scope import NO_CALLS, scoped
from tts_plugins_dspy._calls.usage import tool_calls_of
from tts_plugins_dspy._outputs.forms import last_field, plain, vote_of

_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]\n?(.*?)(?=\n*\[\[ ## \w+ ## \]\]|\Z)", re.DOTALL)


class Votes:
    """What votes of the outputs of a call that is made here, in a predictor or outside of one."""

    def __init__(self) -> None:
        callers = [caller for caller in dspy.settings.get("caller_modules") or [] if isinstance(caller, dspy.Module)]
        self._signature = getattr(callers[-1], "signature", None) if callers else None
        self._adapter = dspy.settings.get("adapter") or dspy.ChatAdapter()
        fields = () if self._signature is None else self._signature.output_fields.values()
        self._calls_tools = self._signature is None or any(dspy.ToolCalls in _kinds(field) for field in fields)

    def __call__(self, output: Any) -> str | None:
        """Return the vote of an output; None where it has none."""
        text, calls = _parts(output)
        if calls and self._calls_tools:
            return vote_of(calls)  # what it does, whatever it says beside it
        fields = self._fields(text)
        if fields:
            return last_field(dspy.Prediction.from_completions([fields], self._signature))
        return _last(text + calls)

    def parses(self, output: Any) -> bool:
        """Return whether the adapter can read it, where one will."""
        text, calls = _parts(output)
        return self._signature is None or bool(calls and self._calls_tools) or bool(self._fields(text))

    def _fields(self, text: str) -> dict[str, Any] | None:
        return None if self._signature is None else _parsed(self._adapter, self._signature, text)


def said_by(output: Any) -> str:
    """Return what a language model's output says, its tool calls included."""
    return "".join(_parts(output))


def _parts(output: Any) -> tuple[str, str]:
    """The text, and the tool calls as a text: without their ids, and with their arguments in one spelling."""
    first = output[0] if isinstance(output, list) and output else output
    if isinstance(first, Mapping):
        calls = tool_calls_of(first)
        return str(first.get("text") or ""), plain(calls) if calls else ""
    return first if isinstance(first, str) else str(getattr(first, "text", first) or ""), ""


def _parsed(adapter: Any, signature: Any, text: str) -> dict[str, Any] | None:
    """The fields as the adapter parses them; None where it cannot, or would ask a language model to."""
    parse = inspect.unwrap(type(adapter).parse)  # without callbacks: the adapter will parse the winner again
    with scoped(NO_CALLS, callbacks=[]):
        for asked in (signature, _without_native(signature)):
            with contextlib.suppress(Exception):
                fields = parse(adapter, asked, text)
                if isinstance(fields, dict) and fields:
                    return fields
    return None


def _without_native(signature: Any) -> Any:
    """The signature without the outputs that come beside the text, such as tool calls and native reasoning."""
    for name, field in signature.output_fields.items():
        if any(isinstance(kind, type) and kind.__module__.startswith("dspy.") for kind in _kinds(field)):
            signature = signature.delete(name)
    return signature


def _kinds(field: Any) -> tuple[Any, ...]:
    """The type of a field, and those of a union or an optional one."""
    return (field.annotation, *get_args(field.annotation))


def _last(text: str) -> str | None:
    """The last field in the form of `dspy.ChatAdapter` or `dspy.JSONAdapter`; in another text, what `extract` finds."""
    if fields := [value for name, value in _FIELD.findall(text) if name != "completed"]:
        return vote_of(fields[-1].strip())
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return extract(text)
    return vote_of(plain(list(read.values())[-1])) if isinstance(read, dict) and read else extract(text)
