"""LangGraph's graphs inside of what is wrapped: those with a memory of their own, and those that were interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableBranch, RunnableParallel, RunnableSequence
from langchain_core.runnables.passthrough import RunnableAssign

from tts_plugins.errors import ConfigurationError

_INSIDE = ("bound", "runnable", "default")  # of bindings and retries, of fallbacks, of configurable ones
_INTERRUPTED = "__interrupt__"  # langgraph.constants.INTERRUPT, without importing langgraph


def check_memory(owner: str, runnable: Any, mend: str) -> None:
    """Refuse a graph that writes what it does to the caller's thread: all candidates would be one conversation.

    Functions are not looked into.

    Raises:
        ConfigurationError: a graph in it has a checkpointer of its own.
    """
    for graph in _graphs(runnable, set()):
        if getattr(graph, "checkpointer", None) not in (None, False):
            raise ConfigurationError(
                f"{owner}: the graph {graph.get_name()!r} has a checkpointer of its own, so that all its runs in a "
                f"search would be written to the caller's one thread; {mend}"
            )


def check_finished(owner: str, output: Any) -> None:
    """Refuse a state that waits for a human: it is no answer, and nobody can resume one candidate of several.

    Raises:
        ConfigurationError: a graph gave it.
    """
    if isinstance(output, Mapping) and output.get(_INTERRUPTED):
        raise ConfigurationError(
            f"{owner}: the graph inside was interrupted ({output[_INTERRUPTED]}), and a search cannot resume it; make "
            "the scaled graph a node of a graph with a checkpointer, which then waits, or search inside the graph: "
            "create_agent(..., middleware=[TestTimeScaling(...)])"
        )


def _graphs(runnable: Any, seen: set[int]) -> Iterator[Any]:
    pregel = sys.modules.get("langgraph.pregel")  # nobody has a graph who has not imported it
    if pregel is None or id(runnable) in seen:
        return
    seen.add(id(runnable))
    if isinstance(runnable, pregel.Pregel):
        yield runnable
    for part in _parts(runnable):
        yield from _graphs(part, seen)


def _parts(runnable: Any) -> Iterable[Any]:
    if isinstance(runnable, RunnableSequence):
        return runnable.steps
    if isinstance(runnable, RunnableParallel):
        return runnable.steps__.values()
    if isinstance(runnable, RunnableAssign):
        return [runnable.mapper]
    if isinstance(runnable, RunnableBranch):
        return [*(part for pair in runnable.branches for part in pair), runnable.default]
    if isinstance(nodes := getattr(runnable, "nodes", None), Mapping):
        return [graph for node in nodes.values() for graph in getattr(node, "subgraphs", None) or ()]
    inside = [part for name in _INSIDE if isinstance(part := getattr(runnable, name, None), Runnable)]
    return [*inside, *(getattr(runnable, "fallbacks", None) or ())]
