"""DSPy's inputs as problems and its predictions as candidates, as verifiers, votes and traces see them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dspy
from pydantic import BaseModel

from tts_plugins import Generation, Problem
from tts_plugins.adapters import Text, causes_of
from tts_plugins.answers import normalise, remembered


def problem_of(args: tuple[Any, ...], inputs: Mapping[str, Any]) -> Problem:
    """Return a module's inputs as a problem: by name, as they are; positional ones under "args"."""
    content = {**({"args": args} if args else {}), **inputs}
    return Problem(content, metadata={"inputs": dict(inputs)})


def generation_of(output: Any) -> Generation:
    """Return a module's output as a generation: its `output` is the object, its text the fields by name."""
    return Generation(text=Text.of(text_of(output), output, blank=_is_blank(output)), output=output)


def text_of(output: Any) -> str:
    """Return what an output says: a prediction's fields, one after the other; a text as it is."""
    if isinstance(output, dspy.Example):
        return "\n".join(f"{name}: {plain(value)}" for name, value in output.items())
    return plain(output)


def _is_blank(output: Any) -> bool | None:
    """Whether a prediction says nothing: all of its fields but the reasoning are None or blank."""
    if not isinstance(output, dspy.Example):
        return None
    values = [value for name, value in output.items() if name != "reasoning"]
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in values)


def plain(value: Any) -> str:
    """Return a value as text: JSON for everything that is not a text already."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=_json, sort_keys=True, ensure_ascii=False)


def last_field(output: Any) -> str | None:
    """Return what votes of an output: its last field, as in `dspy.majority`.

    The signature says which one that is, not the order in which the model wrote. A field that the program added comes
    after those of the signature.
    """
    if isinstance(output, dspy.Example):
        completions = output.completions if isinstance(output, dspy.Prediction) else None
        declared = list(getattr(getattr(completions, "signature", None), "output_fields", ()))
        held = list(output.keys())
        names = [*(name for name in declared if name in held), *(name for name in held if name not in declared)]
        if not names:
            return None
        output = output[names[-1]]
    return None if output is None else vote_of(plain(output))


def vote_of(text: str) -> str | None:
    """Return a text as a vote, normalised, so that "4." agrees with "4"; None where nothing is left of it."""
    return _normalised(text) or None


_normalised = remembered(normalise)


def written_of(error: BaseException) -> str:
    """Return what a model wrote, where the error is that an adapter could not parse it; else nothing."""
    found = (getattr(cause, "lm_response", None) for cause in causes_of(error))
    return next((text for text in found if isinstance(text, str)), "")


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        try:
            return value.model_dump(mode="json")
        except Exception:  # noqa: BLE001 - a type of the user's that has no form in JSON
            return str(value)
    return dict(value.items()) if isinstance(value, dspy.Example) else str(value)
