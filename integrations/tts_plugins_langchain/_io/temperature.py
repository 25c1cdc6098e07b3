"""Whether samples can differ: the temperatures of what is wrapped, as far as all of it can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import RunnableParallel, RunnablePassthrough, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.passthrough import RunnableAssign

from tts_plugins.adapters import SearchSettings
from tts_plugins.errors import ConfigurationError

_NAME = "temperature"


def temperatures_of(runnable: Any, arguments: Any = ()) -> list[Any]:
    """Of all its models; None stands for what may differ by itself: a function, a graph, a model that does not say.

    Args:
        arguments: those of the call, which come before a model's own.
    """
    if _NAME in arguments:
        return [arguments[_NAME]]
    if isinstance(runnable, RunnableBindingBase):
        return temperatures_of(runnable.bound, runnable.kwargs)
    if isinstance(runnable, RunnableSequence):
        return [value for step in runnable.steps for value in temperatures_of(step)]
    if isinstance(runnable, RunnableParallel):
        return [value for step in runnable.steps__.values() for value in temperatures_of(step)]
    if isinstance(runnable, RunnableAssign):
        return temperatures_of(runnable.mapper)
    if isinstance(runnable, BasePromptTemplate | BaseOutputParser) or type(runnable) is RunnablePassthrough:
        return []
    return [getattr(runnable, _NAME, None) if isinstance(runnable, BaseLanguageModel) else None]


def check_sampling(owner: str, settings: SearchSettings, temperatures: Sequence[Any]) -> None:
    """Refuse to pay several times for one sample.

    Raises:
        ConfigurationError: more than one is asked for side by side, and every model there has temperature 0.
    """
    n = settings.n
    if n is None:  # attempts that follow each other differ by what they are shown
        n = next((count for name in ("chains", "population") if (count := getattr(settings.strategy, name, None))), 1)
    if n > 1 and temperatures and all(_is_zero(value) for value in temperatures):
        raise ConfigurationError(
            f"{owner}: n={n} samples at temperature=0 are all the same; set temperature=0.8 on the model"
        )


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
