"""What a runnable remembers between its calls, and graphs that were interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables.history import RunnableWithMessageHistory

from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.parts import is_graph, parts_of

_INTERRUPTED = "__interrupt__"  # langgraph.constants.INTERRUPT, without importing langgraph


def check_memory(owner: str, runnable: Any, fix: str) -> None:
    """Raise if something in it writes to the caller's one conversation: all candidates would be written there.

    Functions are not looked into.

    Args:
        fix: what to do about a graph that has a checkpointer.

    Raises:
        ConfigurationError: a graph in it has a checkpointer of its own, or a part keeps a history of messages.
    """
    for part in parts_of(runnable):
        inside = part.runnable
        if isinstance(inside, RunnableWithMessageHistory):
            raise ConfigurationError(
                f"{owner}: {inside.get_name()!r} keeps a history of messages, and all candidates of a search would be "
                "written to it; put the history outside: RunnableWithMessageHistory(scale(chain), get_session_history)"
            )
        if is_graph(inside) and vars(inside).get("checkpointer") not in (None, False):
            raise ConfigurationError(
                f"{owner}: the graph {inside.get_name()!r} has a checkpointer of its own, so that all its runs in a "
                f"search would be written to the caller's one thread; {fix}"
            )


def check_finished(owner: str, output: Any) -> None:
    """Refuse a state that waits for a human: it is not an answer, and nobody can resume one candidate of several.

    Raises:
        ConfigurationError: a graph gave it.
    """
    if isinstance(output, Mapping) and output.get(_INTERRUPTED):
        raise ConfigurationError(
            f"{owner}: the graph inside was interrupted ({output[_INTERRUPTED]}), and a search cannot resume it; make "
            "the scaled graph a node of a graph with a checkpointer, which then waits, or search inside the graph: "
            "create_agent(..., middleware=[TestTimeScaling(...)])"
        )
