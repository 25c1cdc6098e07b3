"""What a candidate changes in a call of a language model: its sample, its temperature, and the hints that it shows.

DSPy's cache answers the same call with the same text, at any temperature; `rollout_id` keeps calls apart, is part of
the cache's key, and is not sent. All of this is done to the call itself, below adapters and predictors, so that it
holds for every program: whatever adapter it sets, however many language models it has, and where it calls one directly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from tts_plugins_dspy._calls.own_models import taken
from tts_plugins_dspy._calls.scope import HINT, Scope, derive
from tts_plugins_dspy._calls.versions import sample_arguments


def prompted(scope: Scope, lm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Return the arguments of a call as the candidate makes it."""
    if getattr(lm, "supports_decision_requests", False) is True:
        return args, kwargs  # it takes neither settings nor messages
    prompt, messages, rest = _read(args, kwargs)
    if _is_request(prompt):
        return (_hinted_request(prompt, _hints(scope, lm, prompt)),), {**rest, **_sample(scope, lm, rest, bare=True)}
    hints = _hints(scope, lm, messages or prompt)
    if hints and messages is not None:
        messages = _hinted(messages, hints)
    elif hints:
        prompt = f"{prompt}\n\n{hints}"
    changed = {**rest, **_sample(scope, lm, rest)}
    return () if prompt is None else (prompt,), changed if messages is None else {**changed, "messages": messages}


def _read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The prompt, the messages, and the other arguments: the first two could be given by place."""
    rest = dict(kwargs)
    prompt = args[0] if args else rest.pop("prompt", None)
    messages = args[1] if len(args) > 1 else rest.pop("messages", None)
    if prompt is None and _is_request(rest.get("request")):
        prompt = rest.pop("request")
    return prompt, messages, rest


def _sample(scope: Scope, lm: Any, asked: Mapping[str, Any], *, bare: bool = False) -> dict[str, Any]:
    """The arguments that keep a call apart from the same call of other candidates."""
    if scope.sample is None:
        return {}
    standing = {**getattr(lm, "kwargs", {}), **asked}
    # DSPy's cache knows a model by its name: without the address, servers of one name would answer for each other.
    path = (scope.sample, standing.get("rollout_id"), standing.get("api_base"))
    changes = sample_arguments(derive(*[part for part in path if part is not None]), standing)
    if scope.temperature is not None and not standing.get("temperature") and not bare:
        changes["temperature"] = scope.temperature
    return taken(lm, changes)


def _hints(scope: Scope, lm: Any, asked: Any) -> str:
    """The hints as one text; none for a model of the adapter's own, which reads an output and writes none."""
    if not scope.hints or _reads(scope, lm, asked):
        return ""
    return "\n\n".join(f"{HINT}:\n{text}" for text in scope.hints)


def _reads(scope: Scope, lm: Any, asked: Any) -> bool:
    """Whether it is the adapter's own model; where that is the program's model too, whether it is shown an output."""
    adapter = dspy.settings.get("adapter")
    if adapter is None or not any(value is lm for value in vars(adapter).values()):
        return False
    if lm is not dspy.settings.get("lm"):
        return True
    messages = asked if isinstance(asked, list) else [asked]
    shown = "\n".join(str(message.get("content") if isinstance(message, Mapping) else message) for message in messages)
    return any(text in shown for text in scope.written or ())


_NOTE = f"The input `{HINT}` shows attempts at the whole program so far, and what was said of them."


def _hinted(messages: Sequence[Any], hints: str) -> list[Any]:
    """The conversation, whose last turn of the user ends with the hints; the system's turn says what they are."""
    made = list(messages)
    users = [i for i, message in enumerate(made) if _role(message) == "user"]
    if not users:
        return [*made, {"role": "user", "content": hints}]
    made[users[-1]] = _longer(made[users[-1]], hints)
    if _role(made[0]) == "system":
        made[0] = _longer(made[0], _NOTE)
    return made


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _longer(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content}\n\n{text}" if content else text}


def _is_request(value: Any) -> bool:
    """Whether it is a request of DSPy 3.3 and later, which holds messages and settings in itself."""
    return hasattr(value, "messages") and hasattr(value, "config") and dataclasses.is_dataclass(value)


def _hinted_request(request: Any, hints: str) -> Any:
    if not hints:
        return request
    said = type(request.messages[-1]).user(hints)
    return dataclasses.replace(request, messages=(*request.messages, said))
