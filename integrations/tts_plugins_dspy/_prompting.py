"""What a candidate changes in a call of a language model: its sample, its temperature, and the hints that it shows.

DSPy's cache answers the same call with the same text, at any temperature; `rollout_id` keeps calls apart, is part of
the cache's key, and is not sent. All of this is done to the call itself, below adapters and predictors, so that it holds
for every program: whatever adapter it sets, however many language models it has, and where it calls one directly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from tts_plugins_dspy._scope import HINT, Scope, derive
from tts_plugins_dspy._versions import sample_arguments


def prompted(scope: Scope, lm: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Return the arguments of a call as the candidate makes it."""
    if getattr(lm, "supports_decision_requests", False) is True:
        return args, kwargs  # it takes neither settings nor messages
    prompt, messages, rest = _read(args, kwargs)
    if _is_request(prompt):
        return (_hinted_request(prompt, _hints(scope, lm)),), {**rest, **_sample(scope, lm, rest, bare=True)}
    hints = _hints(scope, lm)
    if hints and messages is not None:
        messages = _hinted(messages, hints)
    elif hints:
        prompt = "\n\n".join([str(prompt), *hints])
    changed = {**rest, **_sample(scope, lm, rest)}
    return () if prompt is None else (prompt,), changed if messages is None else {**changed, "messages": messages}


def _read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The prompt, the messages, and the other arguments: the first two could be given by place."""
    rest = dict(kwargs)
    given = dict(zip(("prompt", "messages"), args, strict=False))
    prompt, messages = (rest.pop(name, None) if name not in given else given[name] for name in ("prompt", "messages"))
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
    changes = sample_arguments(derive(*(part for part in path if part is not None)), standing)
    if scope.temperature is not None and not standing.get("temperature") and not bare:
        changes["temperature"] = scope.temperature
    return changes


def _hints(scope: Scope, lm: Any) -> tuple[str, ...]:
    """The hints, but for a model that belongs to the adapter, which reads another one's output and writes none."""
    adapter = dspy.settings.get("adapter")
    own = adapter is not None and any(value is lm for value in vars(adapter).values())
    return () if own else tuple(f"{HINT} (attempts at the whole program so far):\n{text}" for text in scope.hints)


def _hinted(messages: Sequence[Any], hints: Sequence[str]) -> list[Any]:
    """The conversation, whose last turn of the user ends with the hints."""
    shown = "\n\n".join(hints)
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if not isinstance(message, Mapping) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            said: Any = f"{content}\n\n{shown}"
        elif isinstance(content, list):
            said = [*content, {"type": "text", "text": shown}]
        else:
            continue
        return [*messages[:place], {**message, "content": said}, *messages[place + 1 :]]
    return [*messages, {"role": "user", "content": shown}]


def _is_request(value: Any) -> bool:
    """Whether it is a request of DSPy 3.3 and later, which holds messages and settings in itself."""
    return dataclasses.is_dataclass(value) and hasattr(value, "messages") and hasattr(value, "config")


def _hinted_request(request: Any, hints: Sequence[str]) -> Any:
    if not hints:
        return request
    said = type(request.messages[-1]).user("\n\n".join(hints))
    return dataclasses.replace(request, messages=(*request.messages, said))
