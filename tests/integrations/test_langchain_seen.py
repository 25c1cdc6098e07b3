"""What is seen of a search from outside: events, runs, streams, the user's cache."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import collect_runs
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale
from tts_plugins_langchain._io.conversion import generation_of

from tts_plugins import SelfConsistency

ASKED: Any = {"messages": [("user", "q")]}


def model() -> FakeListChatModel:
    return FakeListChatModel(responses=["one", "two"])


async def drained(stream: Any) -> None:
    async for _ in stream:
        pass


WAYS: dict[str, tuple[str, Callable[[], Any]]] = {
    "chain": ("search", lambda: scale(model(), n=2, name="search").invoke("q")),
    "chain async": ("search", lambda: asyncio.run(scale(model(), n=2, name="search").ainvoke("q"))),
    "chain stream": ("search", lambda: list(scale(model(), n=2, name="search").stream("q"))),
    "model": ("ScaledChatModel", lambda: ScaledChatModel(model(), n=2).invoke("q")),
    "model async": ("ScaledChatModel", lambda: asyncio.run(ScaledChatModel(model(), n=2).ainvoke("q"))),
    "model stream": ("ScaledChatModel", lambda: list(ScaledChatModel(model(), n=2).stream("q"))),
    "model astream": ("ScaledChatModel", lambda: asyncio.run(drained(ScaledChatModel(model(), n=2).astream("q")))),
}


@pytest.mark.parametrize("way", WAYS)
def test_candidates_hang_below_the_run_of_the_search(way: str) -> None:
    name, call = WAYS[way]
    with collect_runs() as collected:
        call()
    assert [run.name for run in collected.traced_runs] == [name]
    found, todo = [], list(collected.traced_runs)
    while todo:
        run = todo.pop()
        found.append(run.name)
        todo += run.child_runs
    assert {"candidate 0", "candidate 1"} <= set(found) and found.count("FakeListChatModel") == 2


AGENTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "middleware": ("TestTimeScaling", lambda: create_agent(model(), [], middleware=[TestTimeScaling(n=2)])),
    "two of them": (
        "first",
        lambda: create_agent(
            model(), [], middleware=[TestTimeScaling(n=2, name="first"), TestTimeScaling(n=1, name="second")]
        ),
    ),
    "model": ("ScaledChatModel", lambda: create_agent(ScaledChatModel(model(), n=2), [])),
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("kind", AGENTS)
def test_an_agents_candidates_hang_below_the_run_of_the_search(kind: str, how: str) -> None:
    """LangGraph itself shows a bare agent's model call as a run of its own there, beside the graph's."""
    name, make = AGENTS[kind]
    with collect_runs() as collected:
        make().invoke(ASKED) if how == "sync" else asyncio.run(make().ainvoke(ASKED))
    assert [run.name for run in collected.traced_runs] == [name, "LangGraph"]
    candidates = collected.traced_runs[0].child_runs
    assert sorted(run.name for run in candidates) == ["candidate 0", "candidate 1"]


def test_feedback_goes_to_the_search_wherever_it_is_called() -> None:
    from langgraph.func import entrypoint, task
    from langgraph.types import Send

    scaled = scale(model(), n=2, name="search")

    @task
    def ask(question: str) -> str:
        return str(scaled.invoke(question).text)

    @entrypoint()
    def flow(question: str) -> str:
        return ask(question).result()

    sends = StateGraph(MessagesState).add_node("ask", lambda state: {"messages": [scaled.invoke("q")]})
    sends.add_conditional_edges(START, lambda state: [Send("ask", state)] * 2, ["ask"])
    for graph, value, times in ((flow, "q", 1), (sends.compile(), ASKED, 2)):
        with collect_runs() as collected:
            graph.invoke(value)
        assert [run.name for run in collected.traced_runs] == ["search"] * times + ["LangGraph"]
        for run in collected.traced_runs[:-1]:
            assert sorted(child.name for child in run.child_runs) == ["candidate 0", "candidate 1"]


def graph_of(node: Any) -> Any:
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()


@pytest.mark.parametrize("show", [False, True])
def test_a_custom_stream_has_the_searchs_progress_and_not_the_losers_writes(show: bool) -> None:
    def chain(value: Any) -> Any:
        get_stream_writer()("a write of a candidate")
        return {"messages": [AIMessage("4")]}

    scaled = scale(RunnableLambda(chain), n=3, verifier=lambda output: 0.5)
    config: Any = {"configurable": {"tts_show_candidates": True}} if show else {}
    seen = list(graph_of(scaled).stream(ASKED, config, stream_mode="custom"))
    if show:
        assert seen.count("a write of a candidate") == 3
        return
    assert sorted(part["tts"]["candidate"] for part in seen) == [0, 1, 2]
    assert {part["tts"]["score"] for part in seen} == {0.5}


def test_messages_are_streamed_once_with_the_usage_of_the_search() -> None:
    said = AIMessage("4", usage_metadata={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4})
    from langchain_core.language_models import GenericFakeChatModel

    inner = GenericFakeChatModel(messages=iter([said] * 9))
    scaled = ScaledChatModel(inner, n=3)
    for node in (lambda state: {"messages": [scaled.invoke(state["messages"])]},):
        parts = [part for part, _ in graph_of(node).stream(ASKED, stream_mode="messages")]
        assert "".join(str(part.content) for part in parts) == "4"
        assert sum((part.usage_metadata or {}).get("total_tokens", 0) for part in parts) == 12


async def test_events_show_the_answer_as_the_models_own() -> None:
    scaled = ScaledChatModel(model(), strategy=SelfConsistency(n=2))
    events = [event async for event in scaled.astream_events("q", version="v2")]
    assert [event["event"] for event in events] == ["on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"]


def test_the_users_cache_stays_theirs() -> None:
    cache = InMemoryCache()
    set_llm_cache(cache)
    try:
        assert ScaledChatModel(model(), n=2).invoke("q").content
        with pytest.raises(ValueError, match="no"):
            scale(RunnableLambda(fails), n=2).invoke("q")
        assert get_llm_cache() is cache
    finally:
        set_llm_cache(None)


def fails(value: Any) -> Any:
    raise ValueError("no")


def test_reasoning_comes_from_the_standard_blocks() -> None:
    thinking = [{"type": "reasoning", "reasoning": "2 and 2"}, {"type": "text", "text": "4"}]
    message = AIMessage(content=thinking, response_metadata={"output_version": "v1"})
    assert generation_of(message).reasoning == "2 and 2"
    old = AIMessage("4", additional_kwargs={"reasoning_content": "so"})
    assert generation_of(old).reasoning == "so"


def test_everything_is_imported_with_langchain_core_alone() -> None:
    script = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('langchain', 'langgraph'):\n"
        "            raise ModuleNotFoundError(name, name=name.split('.')[0])\n"
        "sys.meta_path.insert(0, Without())\n"
        "from tts_plugins_langchain import *\n"
        "assert 'TestTimeScaling' not in globals() and scale and ScaledChatModel\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
