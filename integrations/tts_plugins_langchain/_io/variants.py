"""What a rung of a ladder asks instead of what is wrapped: another model, or another reasoning effort."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence

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
            f"{_name(wrapped)}: a rung asks model={given!r}, effort={variant.effort!r}, and no chat model can be seen "
            "in it; give the rung the whole chain: Rung(model=prompt | other_model | parser)"
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
    if isinstance(part, RunnableSequence):
        steps = [_inside(step, variant) for step in part.steps]
        if all(step is None for step in steps):
            return None
        return RunnableSequence(*(new or old for new, old in zip(steps, part.steps, strict=True)), name=part.name)
    return None


def _name(wrapped: Any) -> str:
    return wrapped.get_name() if isinstance(wrapped, Runnable) else type(wrapped).__name__
