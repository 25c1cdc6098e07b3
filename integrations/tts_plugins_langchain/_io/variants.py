"""What a rung of a ladder asks instead of what is wrapped: another model, or another reasoning effort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)

from tts_plugins.adapters import VARIANT, Variant
from tts_plugins.errors import ConfigurationError


def varied(wrapped: Any) -> Any:
    """Return what this candidate asks: what is wrapped, or the same with another model or effort in it.

    Raises:
        ConfigurationError: no chat model can be seen in what is wrapped.
    """
    variant = VARIANT.get()
    if variant is None:
        return wrapped
    given = variant.model
    if isinstance(given, Runnable) and not isinstance(given, BaseLanguageModel):
        wrapped, variant = given, Variant(effort=variant.effort)  # a whole chain
        if variant.effort is None:
            return wrapped
    made = _inside(wrapped, variant)
    if made is None:
        raise ConfigurationError(
            f"{_name(wrapped)}: a rung asks model={_name(given)!r}, effort={variant.effort!r}, and no chat model can "
            "be seen in it; give the rung the whole chain: Rung(model=prompt | other_model | parser)"
        )
    return made


def _inside(part: Any, variant: Variant) -> Any:
    """Return the same with its chat models varied; None where it has none that can be seen."""
    if isinstance(part, BaseLanguageModel):
        model: Any = variant.model if isinstance(variant.model, BaseLanguageModel) else part
        return model.bind(**variant.arguments) if variant.arguments else model
    if isinstance(part, RunnableBinding):
        inner = _inside(part.bound, variant)
        return None if inner is None else part.model_copy(update={"bound": inner})
    if isinstance(part, RunnableAssign):
        inner = _inside(part.mapper, variant)
        return None if inner is None else part.model_copy(update={"mapper": inner})
    if isinstance(part, RunnableSequence):
        steps = _each(part.steps, variant)
        return None if steps is None else RunnableSequence(*steps, name=part.name)
    if isinstance(part, RunnableParallel):  # the raw message beside what is parsed of it
        steps = _each(tuple(part.steps__.values()), variant)
        return (
            None if steps is None else part.model_copy(update={"steps__": dict(zip(part.steps__, steps, strict=True))})
        )
    if isinstance(part, RunnableWithFallbacks):
        steps = _each((part.runnable, *part.fallbacks), variant)
        return None if steps is None else part.model_copy(update={"runnable": steps[0], "fallbacks": steps[1:]})
    return None


def _each(parts: Sequence[Any], variant: Variant) -> list[Any] | None:
    """Return the parts, those with chat models varied; None where no part has one that can be seen."""
    made = [_inside(part, variant) for part in parts]
    if all(part is None for part in made):
        return None
    return [old if new is None else new for new, old in zip(made, parts, strict=True)]


def _name(wrapped: Any) -> str:
    if wrapped is None or isinstance(wrapped, str):
        return str(wrapped)
    return wrapped.get_name() if isinstance(wrapped, Runnable) else type(wrapped).__name__
