"""Graphs as what is wrapped: the conversation is the caller's, and an interrupt is not an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    RunnableBranch,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from tts_plugins_langchain import scale

from tts_plugins import BestOfN
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, TTSError

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def graph_of(node: Any, **settings: Any) -> Any:
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile(**settings)


def counting() -> Callable[[Any], Any]:
    said = iter("54321")
    return lambda state: {"messages": [("ai", f"{len(state['messages'])} {next(said)}")]}


def ask(text: str) -> Any:
    return {"messages": [("human", text)]}


def is_four(output: Any) -> bool:
    return bool(output["messages"][-1].content.endswith("4"))


def run(scaled: Any, how: str, value: Any, config: Any = None) -> Any:
    return scaled.invoke(value, config) if how == "sync" else asyncio.run(scaled.ainvoke(value, config))


@pytest.mark.parametrize("memory", [InMemorySaver(), True])
def test_a_graph_with_a_checkpointer_is_refused_wherever_it_is_seen(memory: Any) -> None:
    graph = graph_of(counting(), checkpointer=memory)
    plain = RunnablePassthrough()
    for wrapped in [
        graph, graph.with_config(tags=["x"]), plain | graph, plain | {"a": graph}, graph.with_retry(),
        plain.with_fallbacks([graph]), RunnablePassthrough.assign(a=graph), graph_of(graph),
        graph.bind(x=1), graph.with_types(), graph.with_listeners(), graph.with_fallbacks([plain]), graph.map(),
        plain.with_fallbacks([plain, graph]), RunnableBranch((lambda x: True, plain), graph),
        plain.configurable_alternatives(ConfigurableField("way"), other=graph), plain | RouterRunnable({"a": graph}),
        graph.bind(x=1).with_retry().with_config(tags=["y"]), graph_of(plain | graph.with_types()),
    ]:  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"'LangGraph' has a checkpointer .* a node of .*TestTimeScaling"):
            scale(wrapped, n=2)
    with pytest.raises(ConfigurationError, match=r"verifier: .* has a checkpointer"):
        scale(RunnableLambda(str), n=2, verifier=graph)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LangChain's, of all histories
def test_a_history_inside_a_search_is_refused_and_outside_it_holds_one_exchange() -> None:
    kept = InMemoryChatMessageHistory()
    said = iter("543")
    chain = RunnableLambda(lambda value: f"It is {next(said)}")
    inside = RunnableWithMessageHistory(chain, lambda: kept, input_messages_key="q")
    plain = RunnablePassthrough()
    for wrapped in [inside, plain | inside, inside.with_retry(), plain.with_fallbacks([inside]), inside.bind(x=1)]:
        with pytest.raises(ConfigurationError, match=r"keeps a history .*RunnableWithMessageHistory\(scale\(chain\)"):
            scale(wrapped, n=3)
    outside = RunnableWithMessageHistory(scale(chain, n=3), lambda: kept, input_messages_key="q")
    outside.invoke({"q": "2 + 2?"})
    assert len(kept.messages) == 2


@pytest.mark.parametrize("how", ["sync", "async"])
def test_as_a_node_of_a_graph_with_a_checkpointer_the_thread_gets_the_chosen_answer(how: str) -> None:
    scaled = scale(graph_of(counting(), checkpointer=None), strategy=BestOfN(n=2), verifier=is_four, concurrency=1)
    app = graph_of(scaled, checkpointer=InMemorySaver())
    run(app, how, ask("2 + 2"), CONFIG)
    assert [m.content for m in app.get_state(CONFIG).values["messages"]] == ["2 + 2", "1 4"]
    run(app, how, ask("again"), CONFIG)
    kept = [m.content for m in app.get_state(CONFIG).values["messages"]]
    assert kept[:3] == ["2 + 2", "1 4", "again"] and kept[3].startswith("3 ") and len(kept) == 4


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_interrupted_graph_is_no_candidate(how: str) -> None:
    seen: list[Any] = []
    scaled = scale(graph_of(lambda state: {"messages": [("ai", interrupt("which?"))]}), n=2, verifier=seen.append)
    with pytest.raises(ConfigurationError, match=r"was interrupted .*which\?.* a node of a graph"):
        run(scaled, how, ask("2 + 2"))
    assert not seen, "nothing was judged"
    app = graph_of(scaled, checkpointer=InMemorySaver())
    assert run(app, how, ask("2 + 2"), CONFIG)["__interrupt__"][0].value == "which?"


class Judges:
    """A set verifier that fails."""

    name = "judges"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def bound(self, problem: Any, tokens: int | None) -> Bound:
        return FREE

    async def score_set(self, run: Any, candidates: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupts_of_a_set_verifier_pass_through(how: str) -> None:
    def scaled(error: BaseException) -> Any:
        return scale(RunnableLambda(str), strategy=BestOfN(n=2), verifier=Judges(error))

    with pytest.raises(GraphInterrupt):
        run(scaled(GraphInterrupt(("wait",))), how, "?")
    with pytest.raises(TTSError, match=r"judges: ValueError: no"):
        run(scaled(ValueError("no")), how, "?")


def test_an_alternative_that_is_made_when_it_is_chosen_is_looked_at_then() -> None:
    graph = graph_of(counting(), checkpointer=InMemorySaver())
    chain = RunnablePassthrough().configurable_alternatives(ConfigurableField(id="which"), other=lambda: graph)
    scaled = scale(chain, n=2)
    assert scaled.invoke("q") == "q"
    with pytest.raises(ConfigurationError, match="checkpointer"):
        scaled.invoke(ask("q"), {"configurable": {"which": "other", "thread_id": "t"}})
