"""One walk over the parts of a runnable, for every check that has to see what is inside.

A binding passes attributes on to what it binds (`binding.nodes` is its graph's), so that parts are found among an
object's own fields, and never by asking it for an attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.fallbacks import RunnableWithFallbacks

from tts_plugins.adapters import is_whole
from tts_plugins_langchain._io.asked_form import FORMS

LIMITS = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens", "num_predict", "max_tokens_to_sample",
)  # fmt: skip
_NESTED = ("model_kwargs", "options", "generation_config", "extra_body", "inference_config", "pipeline_kwargs")


@dataclass(frozen=True)
class Part:
    """A runnable somewhere inside of another one.

    Attributes:
        arguments: what the bindings around it give it.
        instead: whether it stands in only, where something else failed.
    """

    runnable: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    instead: bool = False


def parts_of(runnable: Any, arguments: Mapping[str, Any] | None = None) -> Iterator[Part]:
    """A runnable and all that is inside of it, each once, in the order in which an input reaches them.

    Nodes of graphs and every alternative count; functions are not looked into, nor are language models.
    """
    seen: set[int] = set()
    todo = [Part(runnable, arguments or {})]
    while todo:
        part = todo.pop()
        if id(part.runnable) not in seen:
            seen.add(id(part.runnable))
            yield part
            todo += reversed(list(_inside(part)))


def leaves_of(
    runnable: Any, arguments: Mapping[str, Any] | None = None, config: RunnableConfig | None = None
) -> Iterator[Part]:
    """The parts that have none inside: models, prompts, parsers, functions, and graphs, which are not opened.

    What can be configured is what it is under `config`.
    """
    todo = [Part(runnable, arguments or {})]
    while todo:
        part = todo.pop()
        part = replace(part, runnable=_prepared(part.runnable, config))
        inside = [] if is_graph(part.runnable) else list(_inside(part))
        if inside:
            todo += reversed(inside)
        else:
            yield part


def model_names_of(
    runnable: Any, arguments: Mapping[str, Any] | None = None, config: RunnableConfig | None = None
) -> list[str]:
    """Return the names of its language models, as their servers know them; the arguments' name comes first."""
    found = []
    for part in leaves_of(runnable, arguments, config):
        if isinstance(part.runnable, BaseLanguageModel) and not part.instead:
            names = (part.arguments.get("model"), *(getattr(part.runnable, n, None) for n in ("model_name", "model")))
            found.append(next((name for name in names if isinstance(name, str)), type(part.runnable).__name__))
    return found


def forms_of(leaves: Iterable[Part]) -> dict[str, Any]:
    """Return the tools and the schema that the model has bound, where there is one model alone."""
    models = [part for part in leaves if isinstance(part.runnable, BaseLanguageModel) and not part.instead]
    return {n: models[0].arguments[n] for n in FORMS if models[0].arguments.get(n)} if len(models) == 1 else {}


class Leaves:
    """The leaves of one runnable: looked for once, where no call can have others."""

    def __init__(self) -> None:
        self._known: tuple[Any, Sequence[Part]] | None = None

    def under(self, runnable: Any, arguments: Mapping[str, Any], config: RunnableConfig) -> Sequence[Part]:
        """`leaves_of`, for a call with these arguments and this config."""
        if arguments or config.get("configurable"):
            return tuple(leaves_of(runnable, arguments, config))
        known = self._known
        if known is None or known[0] is not runnable:
            known = self._known = runnable, tuple(leaves_of(runnable))
        return known[1]


def main_part(runnable: Any) -> Any:
    """What stands behind a binding, a retry, fallbacks or configurable fields in the usual case; else itself."""
    while True:
        if isinstance(runnable, RunnableBindingBase):
            runnable = runnable.bound
        elif isinstance(runnable, RunnableWithFallbacks):
            runnable = runnable.runnable
        elif isinstance(runnable, DynamicRunnable):
            runnable = runnable.default
        else:
            return runnable


def output_tokens_of(runnable: Any, arguments: Mapping[str, Any] | None = None) -> int | None:
    """Tokens that an output can have at most: all that its models may write; None if one of them does not say.

    A function may repeat a text, so that this is not a bound there; it is what an answer usually keeps to.
    """
    limits = [
        limit_in({**_own_fields(part.runnable), **part.arguments})
        for part in parts_of(runnable, arguments)
        if isinstance(part.runnable, BaseLanguageModel) and not part.instead
    ]
    known = [limit for limit in limits if limit is not None]
    return sum(known) if known and len(known) == len(limits) else None


def limit_in(settings: Mapping[str, Any]) -> int | None:
    """The limit of a reply's tokens, by any of the names that model packages give it."""
    for name in LIMITS:
        value = settings.get(name)
        if value is not None and is_whole(value, 1):
            return value
    for name in _NESTED:
        inner = settings.get(name)
        if isinstance(inner, Mapping) and (found := limit_in(inner)) is not None:
            return found
    return None


def is_graph(runnable: Any) -> bool:
    """Whether it is a graph of LangGraph, found out without importing it."""
    return any(kind.__module__.startswith("langgraph.pregel") for kind in type(runnable).__mro__)


def _prepared(runnable: Any, config: RunnableConfig | None) -> Any:
    while isinstance(runnable, DynamicRunnable):
        try:
            runnable, config = runnable.prepare(config)
        except Exception:  # noqa: BLE001 - the call itself will say what is wrong with its config
            return runnable.default
    return runnable


def _inside(part: Part) -> Iterator[Part]:
    runnable, arguments = part.runnable, part.arguments
    if isinstance(runnable, RunnableWithFallbacks):
        yield Part(runnable.runnable, arguments, part.instead)
        yield from (Part(other, arguments, True) for other in runnable.fallbacks)
    elif isinstance(runnable, RunnableBindingBase):
        # Arguments of the call come before a binding's, and an outer binding's before an inner one's.
        yield Part(runnable.bound, {**runnable.kwargs, **arguments}, part.instead)
    elif not isinstance(runnable, RunnableLambda | BaseLanguageModel):
        for value in _fields(runnable):
            yield Part(value, arguments, part.instead)


def _own_fields(model: Any) -> Mapping[str, Any]:
    return {name: getattr(model, name, None) for name in (*LIMITS, *_NESTED)}


def _fields(runnable: Any) -> Iterator[Any]:
    """The runnables, and the nodes of graphs, in an object's own fields; the verifier of a search is not part of it."""
    own = dict(getattr(runnable, "__dict__", {}))
    own.pop("verifier", None)
    yield from _found(own.values())


def _found(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Runnable) or _is_node(value):
            yield value
        elif isinstance(value, Mapping):
            yield from _found(value.values())
        elif isinstance(value, list | tuple):
            yield from _found(value)


def _is_node(value: Any) -> bool:
    return type(value).__module__.startswith("langgraph.pregel") and hasattr(type(value), "node")
