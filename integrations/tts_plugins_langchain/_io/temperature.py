"""Whether samples can differ: the temperatures of what is wrapped, as far as all of it can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.passthrough import RunnablePick

from tts_plugins.adapters import SearchSettings, is_number
from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.parts import Part

_NAME = "temperature"


def temperatures_of(leaves: Iterable[Part]) -> Iterator[Any]:
    """The temperatures of all models among the leaves of a runnable.

    None stands for what may differ by itself: a function, a graph, a model that does not say. Fallbacks do not count,
    since they answer only where something else failed.
    """
    for part in leaves:
        quiet = isinstance(part.runnable, BasePromptTemplate | BaseOutputParser | RunnablePick)
        if part.instead or quiet or _parses(part.runnable) or type(part.runnable) is RunnablePassthrough:
            continue
        model = isinstance(part.runnable, BaseLanguageModel)
        yield part.arguments.get(_NAME, getattr(part.runnable, _NAME, None)) if model else None


def check_sampling(owner: str, settings: SearchSettings, temperatures: Iterable[Any]) -> None:
    """Refuse to pay several times for one sample.

    Raises:
        ConfigurationError: more than one is asked for side by side, and every model there has temperature 0.
    """
    n = settings.n
    if n is None:  # attempts that follow each other differ by what they are shown
        n = next((count for name in ("chains", "population") if (count := getattr(settings.strategy, name, None))), 1)
    if n > 1 and _all_zero(temperatures):
        raise ConfigurationError(
            f"{owner}: n={n} samples at temperature=0 are all the same; set temperature=0.8 on the model"
        )


def _parses(runnable: Any) -> bool:
    """Whether it runs functions of LangChain's own and no others, such as those that read a structured output."""
    if not isinstance(runnable, RunnableLambda | RunnableGenerator):
        return False
    found = (vars(runnable).get(name) for name in ("func", "afunc", "_transform", "_atransform"))
    modules = [_module(function) for function in found if function is not None]
    return bool(modules) and all(name.startswith("langchain_") or name in ("operator", "_operator") for name in modules)


def _module(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a partial
    return str(getattr(inner, "__module__", None) or type(inner).__module__)


def _all_zero(temperatures: Iterable[Any]) -> bool:
    some = False
    for value in temperatures:
        if not is_number(value) or value != 0:
            return False
        some = True
    return some
