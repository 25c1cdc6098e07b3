"""DSPy's inputs as problems and its predictions as candidates, as verifiers, votes and traces see them. Pure."""

from __future__ import annotations

import contextlib
import enum
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args

import dspy
from pydantic_core import to_jsonable_python

from tts_plugins import Generation, Problem
from tts_plugins.adapters import Text, causes_of
from tts_plugins.answers import normalise, remembered


def named_inputs(module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a module's inputs by name; positional ones that its `forward` has no names for under "args"."""
    if not args:
        return inputs
    kind = type(module)
    try:  # past DSPy's own access to `forward`, which warns of direct calls; nothing is called here
        method = object.__getattribute__(module, "forward" if hasattr(kind, "forward") else "aforward")
        bound = inspect.signature(method).bind_partial(*args, **inputs)
    except (AttributeError, TypeError, ValueError):  # the call itself will say what is wrong
        return {"args": args, **inputs}
    named = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named


def problem_of(inputs: Mapping[str, Any]) -> Problem:
    """Return a module's inputs as a problem."""
    return Problem(dict(inputs), metadata={"inputs": dict(inputs)})


def generation_of(output: Any) -> Generation:
    """Return a module's output as a generation: its `output` is the object, its text the fields by name."""
    return Generation.made(Text.of(text_of(output), output, blank=_is_blank(output)), output=output)


def text_of(output: Any) -> str:
    """Return what an output says: a prediction's fields, one after the other; a text as it is."""
    if isinstance(output, dspy.Example):
        return "\n".join([f"{name}: {plain(value)}" for name, value in output.items()])
    return plain(output)


def _is_blank(output: Any) -> bool | None:
    """Whether a prediction says nothing: all of its fields but the reasoning are None or blank."""
    if not isinstance(output, dspy.Example):
        return None
    fields = [(name, value) for name, value in output.items() if name != "reasoning"]
    for name, value in fields:
        if value.strip() if isinstance(value, str) else value is not None or _may_be_none(_declared(output), name):
            return False
    return True


def _declared(output: dspy.Example) -> Mapping[str, Any]:
    """The output fields of the signature that a prediction is of."""
    completions = output.completions if isinstance(output, dspy.Prediction) else None
    found: Mapping[str, Any] = getattr(getattr(completions, "signature", None), "output_fields", {})
    return found


def _may_be_none(declared: Mapping[str, Any], name: str) -> bool:
    """Whether None is an answer: the field is of an optional type, so that the model can say that there is no value."""
    return NoneType in get_args(getattr(declared.get(name), "annotation", None))


def plain(value: Any) -> str:
    """Return a value as text: JSON for everything that is not a text already."""
    if isinstance(value, str):
        return value
    with contextlib.suppress(TypeError, ValueError):
        return _dumped(value)
    try:  # its keys are no texts, or cannot be sorted
        return _dumped(to_jsonable_python(value, fallback=str))
    except Exception:  # noqa: BLE001 - a type of the user's; a value that holds itself
        return str(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, default=_json, sort_keys=True, ensure_ascii=False)


def last_field(output: Any) -> str | None:
    """Return what votes of an output: its last field, as in `dspy.majority`.

    The signature says which one that is, not the order in which the model wrote. A field that the program added comes
    after those of the signature.
    """
    if isinstance(output, dspy.Example):
        declared, held = _declared(output), list(output.keys())
        names = [name for name in dict.fromkeys([*declared, *held]) if name in held]
        if not names:
            return None
        if output[names[-1]] is None and _may_be_none(declared, names[-1]):
            return "null"
        output = output[names[-1]]
    return None if output is None else vote_of(plain(output))


def vote_of(text: str) -> str | None:
    """Return a text as a vote, normalised, so that "4." agrees with "4"; None where nothing is left of it.

    Of a text that is one block of code as a whole, its content votes: models write it with its fence or without.
    """
    block = _FENCED.fullmatch(text.strip())
    return _normalised(text if block is None else block[1]) or None


_FENCED = re.compile(r"```[\w+#.-]*[ \t]*\n((?:(?!```).)*?)\n?```", re.DOTALL)
_normalised = remembered(normalise)


def written_of(error: BaseException) -> str:
    """Return what a model wrote, where the error is that an adapter could not parse it; else nothing."""
    found = (getattr(cause, "lm_response", None) for cause in causes_of(error))
    return next((text for text in found if isinstance(text, str)), "")


def _json(value: Any) -> Any:
    if isinstance(value, dspy.Example):
        return dict(value.items())
    if isinstance(value, set | frozenset):
        return sorted(value, key=plain)
    if isinstance(value, enum.Enum):
        return value.value
    try:
        return str(value) if isinstance(value, Iterator) else to_jsonable_python(value)
    except Exception:  # noqa: BLE001 - a type of the user's that has no form in JSON
        return str(value)
