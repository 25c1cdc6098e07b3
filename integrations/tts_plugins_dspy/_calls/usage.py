"""What a call of a language model may use, and what DSPy says that it used."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import dspy
from dspy.utils.usage_tracker import UsageTracker
from pydantic import BaseModel

from tts_plugins.adapters import is_whole
from tts_plugins.metering import Call
from tts_plugins_dspy._isolation import modules_of

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_OWN = ("dspy.clients.", "tts_plugins_dspy.")
_OTHER_NAMES = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


def call_of(lm: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Return the call as a meter knows it, from the arguments that the model is called with."""
    asked = {**getattr(lm, "kwargs", {}), **kwargs}
    prompt = args[0] if args else kwargs.get("prompt")
    sent = {key: _schema(asked[key]) for key in ("tools", "response_format") if asked.get(key)}
    choices = asked.get("n")
    return Call(
        model=str(getattr(lm, "model", type(lm).__name__)),
        prompt={"messages": kwargs.get("messages") or [str(arg) for arg in args], **sent},
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
        max_tokens=_limit(asked, prompt),
    )


def output_tokens_of(program: Any) -> int | None:
    """Return the tokens that a program's output has at most if each predictor is called once; None if not known.

    A program that is a language model itself has its own limit.
    """
    if isinstance(program, dspy.Module):
        models = [getattr(predictor, "lm", None) or dspy.settings.lm for predictor in predictors_of(program)]
    else:
        models = [getattr(program, "lm", None)]
    limits = [_limit(getattr(lm, "kwargs", {}), None) for lm in models]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def predictors_of(program: Any) -> list[Any]:
    """Return the predictors of a program, those of frozen modules too, which `dspy.Module.predictors` leaves out."""
    return [module for module in modules_of(program) if isinstance(module, dspy.Predict)]


def tells_usage(lm: Any) -> bool:
    """Whether its calls are DSPy's own, which tell their usage; a class with methods of its own may tell nobody."""
    names = ("__call__", "acall", "forward", "aforward")
    modules = [str(getattr(getattr(type(lm), name, None), "__module__", "")) for name in names]
    return all(module.startswith(_OWN) for module in modules)


def token_counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a usage with its counts under the names of chat completions; the Responses API has others."""
    counts = dict(usage)
    for name, other in _OTHER_NAMES.items():
        if counts.get(name) is None and (count := usage.get(other)) is not None:
            counts[name] = count
    return counts


def cached_tokens_of(usage: Mapping[str, Any]) -> int:
    """Return the tokens of the prompt that the server had in its cache, as far as it says so."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    count = details.get("cached_tokens") if isinstance(details, Mapping) else getattr(details, "cached_tokens", None)
    return count if isinstance(count, int) and count > 0 else 0


def text_of(output: Any) -> str:
    """Return what one output says, its reasoning and tool calls included: what its tokens are spent on."""
    if isinstance(output, Mapping):
        calls = "".join(f"{call['name']}{call['arguments']}" for call in tool_calls_of(output, parsed=False))
        return "".join(str(output.get(key) or "") for key in ("text", "reasoning_content")) + calls
    return str(output)


def tool_calls_of(output: Mapping[str, Any], *, parsed: bool = True) -> list[dict[str, Any]]:
    """Return the tool calls of an output by name and arguments, without their ids.

    Args:
        parsed: read arguments that are JSON, so that spelling makes no difference.
    """
    made = []
    for call in output.get("tool_calls") or ():
        function = _item(call, "function") or call
        arguments = _item(function, "arguments")
        if parsed and isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        made.append({"name": _item(function, "name"), "arguments": arguments})
    return made


class Reports:
    """What DSPy reports of one call: to its usage tracker, and to the callers in its history.

    It stands in for the tracker, and passes on what it is told. As a caller, it is given the entry that the modules
    around the call are given.

    Attributes:
        counts: the token counts; None if nothing was reported, as after an answer from the cache.
    """

    def __init__(self, standing: Any) -> None:
        self._standing: Any = standing._standing if isinstance(standing, Reports) else standing
        self.counts: dict[str, Any] | None = None
        self._history: list[dict[str, Any]] | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The entry, in a list that is made when it comes: the call is under way for long without one."""
        if self._history is None:
            self._history = []
        return self._history

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """Remember it: a call of several requests may tell of each."""
        before, self.counts = self.counts or {}, token_counts(usage_entry)
        for name in ("prompt_tokens", "completion_tokens"):
            if before.get(name):
                self.counts[name] = before[name] + (self.counts.get(name) or 0)
        if self._standing is not None:
            self._standing.add_usage(lm, usage_entry)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._standing or UsageTracker(), name)

    def entry(self) -> tuple[Mapping[str, Any] | None, bool, int | None]:
        """Return the usage in the entry, whether the answer is from the cache, and how many requests DSPy sent.

        There is one for each choice, or one for all of them. Usage and requests are None where there is no entry.
        """
        entry = self._history[-1] if self._history else {}
        usage, response = entry.get("usage"), entry.get("response")
        requests = len(response) if isinstance(response, tuple) and response else 1
        return (
            usage if isinstance(usage, Mapping) and usage else None,
            getattr(response, "cache_hit", False) is True,
            None if response is None else requests,
        )


def _item(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _schema(value: Any) -> Any:
    return value.model_json_schema() if isinstance(value, type) and issubclass(value, BaseModel) else value


def _limit(asked: Mapping[str, Any], request: Any) -> int | None:
    own = getattr(getattr(request, "config", None), "max_tokens", None)
    for limit in (*map(asked.get, _LIMITS), own):
        if limit is not None and is_whole(limit, 1):
            return limit
    return None
