"""Streams of a search: silent while candidates compete, then the chosen one's events as if it had been called alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import UsageMetadataCallbackHandler, dispatch_custom_event
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from pydantic import BaseModel
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale

from tts_plugins import BestOfN, Revision
from tts_plugins.testing.loopback import LoopbackServer, Reply

N = 3
ASKED: Any = {"messages": [("user", "q")]}
SHOWN: Any = {"configurable": {"tts_show_candidates": True}}
PROMPT = ChatPromptTemplate.from_template("What is {q}?")
USAGE = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply="seeded") as server:
        yield server


def openai(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=16, **settings)


def saying(*texts: str) -> GenericFakeChatModel:
    said = texts or ("4",)
    return GenericFakeChatModel(messages=(AIMessage(said[i % len(said)], usage_metadata=USAGE) for i in range(99)))


async def events_of(runnable: Any, value: Any, config: Any = None) -> list[Any]:
    return [event async for event in runnable.astream_events(value, config, version="v2")]


def counted(events: list[Any], *but: str) -> Counter[str]:
    return Counter(event["event"] for event in events if not event["event"].startswith(but or ("-",)))


def of_models(events: list[Any]) -> list[str]:
    return [event["event"] for event in events if event["event"].startswith("on_chat_model")]


# astream_events

ONE = ["on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"]


def in_a_function(model: Any) -> Any:
    return RunnableLambda(lambda value: model.invoke(f"What is {value['q']}?"))


CHAINS: dict[str, Callable[[Any], Any]] = {
    "prompt, model, parser": lambda model: PROMPT | model | StrOutputParser(),
    "a function": in_a_function,
    "a branch": lambda model: RunnableBranch((lambda value: "q" in value, PROMPT | model), in_a_function(model)),
    "side by side": lambda model: RunnablePassthrough.assign(said=PROMPT | model | StrOutputParser()),
    "a fallback": lambda model: PROMPT | model.with_fallbacks([model]),
    "an alternative": lambda model: (
        PROMPT | model.configurable_alternatives(ConfigurableField(id="which"), default_key="a", b=model)
    ),
    "bound": lambda model: (PROMPT | model.bind(stop=["x"])).with_config(tags=["mine"]),
    "a model that searches": lambda model: PROMPT | ScaledChatModel(model, n=2) | StrOutputParser(),
    "another search": lambda model: PROMPT | scale(model, n=2) | StrOutputParser(),
    "an agent": lambda model: RunnableLambda(lambda value: ASKED) | create_agent(model, []),
}


@pytest.mark.parametrize("kind", CHAINS)
async def test_events_show_one_call_of_the_model(server: LoopbackServer, kind: str) -> None:
    chain = CHAINS[kind](openai(server))
    scaled = scale(chain, n=N, name="search", answer=str)
    value = {"q": 1}
    events = await events_of(scaled, value)
    assert of_models(events) == ONE
    start, piece, end = (event for event in events if event["event"] in ONE)
    assert start["run_id"] == piece["run_id"] == end["run_id"]
    assert end["data"]["output"].text == piece["data"]["chunk"].text != ""
    assert events[0]["name"] == events[-1]["name"] == "search"
    for event in events[1:-1]:
        assert event["name"] == "search" or event["parent_ids"][0] == events[0]["run_id"]
    assert not [event for event in events if event["name"].startswith("candidate")]
    # Where the chain hides nothing itself, every run is shown that a bare one shows, and no other.
    bare = await events_of(chain, value)
    extra = Counter({"on_chain_start": 1, "on_chain_stream": 1, "on_chain_end": 1})
    ours, theirs = counted(events), counted(bare) + extra
    assert {name: ours[name] for name in ours if "stream" not in name} == {
        name: theirs[name] for name in theirs if "stream" not in name
    }
    assert {name for name in theirs if "stream" in name} <= set(ours)


@pytest.mark.parametrize("kind", ["prompt, model, parser", "a function", "a branch", "an agent"])
async def test_all_candidates_are_shown_where_it_is_asked_for(server: LoopbackServer, kind: str) -> None:
    events = await events_of(scale(CHAINS[kind](openai(server)), n=N, answer=str), {"q": 1}, SHOWN)
    assert counted(events)["on_chat_model_end"] == N
    names = {event["name"] for event in events}
    assert {f"candidate {i}" for i in range(N)} <= names


async def test_the_stream_is_the_winners() -> None:
    scaled = scale(
        PROMPT | saying("1", "2", "3") | StrOutputParser(), strategy=BestOfN(n=3), verifier=lambda s: s == "2"
    )
    events = await events_of(scaled, {"q": 1})
    pieces = [event["data"]["chunk"] for event in events if event["event"].endswith("_stream")]
    assert {piece if isinstance(piece, str) else piece.text for piece in pieces} == {"2"}
    (model,) = [event for event in events if event["event"] == "on_chat_model_stream"]
    assert model["data"]["chunk"].usage_metadata == USAGE


async def test_a_revision_that_wins_is_the_one_that_is_shown() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{q}"), ("placeholder", "{attempts}")])
    strategy = Revision(chains=1, rounds=3, select="best")
    scaled = scale(prompt | saying("1", "2", "3"), strategy=strategy, verifier=lambda m: float(m.text == "2"))
    events = await events_of(scaled, {"q": 1})
    assert of_models(events) == ONE
    (start,) = [event for event in events if event["event"] == "on_chat_model_start"]
    assert "1" in str(start["data"]["input"]), "what it was shown of the attempt before"


async def test_tokens_of_a_model_that_streams_come_in_order(server: LoopbackServer) -> None:
    scaled = scale(PROMPT | openai(server, streaming=True, stream_usage=True) | StrOutputParser(), n=N)
    events = await events_of(scaled, {"q": 1})
    pieces = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert len(pieces) > 1 and "".join(pieces) == events[-1]["data"]["output"]


async def test_custom_events_of_losers_are_hidden() -> None:
    def chain(value: Any) -> str:
        dispatch_custom_event("mine", value)
        return "4"

    assert counted(await events_of(scale(chain, n=N), "q"))["on_custom_event"] == 1
    assert counted(await events_of(scale(chain, n=N), "q", SHOWN))["on_custom_event"] == N


async def test_a_search_without_an_answer_shows_nothing_but_itself() -> None:
    def fails(value: Any) -> Any:
        raise KeyError(value)

    scaled, names = scale(RunnableLambda(fails), n=N, name="search"), set()
    with pytest.raises(KeyError):
        async for event in scaled.astream_events("q", version="v2"):
            names.add(event["name"])
    assert names == {"search"}


class Label(BaseModel):
    label: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_structured_outputs_show_their_models_reply(method: str) -> None:
    def reply(body: dict[str, Any], index: int) -> Reply:
        said = '{"label": "spam"}'
        return Reply("", tool_calls=[{"name": "Label", "arguments": said}]) if "tools" in body else Reply(said)

    with LoopbackServer(reply=reply) as server:
        model = ScaledChatModel(openai(server), n=N).with_structured_output(Label, method=method)
        events = await events_of(model, "q")
    assert of_models(events) == ONE
    assert events[-1]["data"]["output"] == Label(label="spam")


@pytest.mark.filterwarnings("ignore:astream_log")
def test_the_log_has_one_call_of_the_model_and_its_text() -> None:
    async def collect() -> list[str]:
        scaled = scale(PROMPT | saying() | StrOutputParser(), n=N)
        return [op["path"] async for patch in scaled.astream_log({"q": 1}) for op in patch.ops]

    paths = asyncio.run(collect())
    assert paths.count("/logs/GenericFakeChatModel") == paths.count("/logs/StrOutputParser") == 1
    assert "/logs/GenericFakeChatModel/streamed_output_str/-" in paths
    assert not [path for path in paths if "candidate" in path or ":2" in path]


async def test_two_searches_side_by_side_show_one_call_each() -> None:
    both = RunnableParallel(a=scale(PROMPT | saying(), n=N), b=scale(PROMPT | saying(), n=2))
    assert counted(await events_of(both, {"q": 1}))["on_chat_model_end"] == 2


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return "found"


class Writes(AgentMiddleware[Any, Any, Any]):
    """Writes to the custom stream, both ways that there are."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        request.runtime.stream_writer("a write of a middleware")
        get_stream_writer()("a write of a middleware")
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        request.runtime.stream_writer("a write of a middleware")
        get_stream_writer()("a write of a middleware")
        return await handler(request)


def calls_then_answers() -> Any:
    """The model of an agent: N candidates that call the tool, then N that answer."""
    usage = {"input_tokens": 3, "output_tokens": 20, "total_tokens": 23}
    call = {"name": "look_up", "args": {"word": "w"}, "id": "1"}
    messages = [AIMessage("", tool_calls=[call], usage_metadata=usage)] * N + [AIMessage("4", usage_metadata=USAGE)] * N

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    return Model(messages=iter(messages))


AGENTS: dict[str, Callable[[], Any]] = {
    "middleware": lambda: create_agent(calls_then_answers(), [look_up], middleware=[TestTimeScaling(n=N), Writes()]),
    "model": lambda: create_agent(ScaledChatModel(calls_then_answers(), n=N), [look_up]),
}


@pytest.mark.parametrize("kind", AGENTS)
async def test_an_agents_turns_are_shown_as_a_bare_agents(kind: str) -> None:
    events = await events_of(AGENTS[kind](), ASKED)
    assert of_models(events) == ONE * 2
    ends = [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"]
    assert [bool(message.tool_calls) for message in ends] == [True, False]
    pieces = [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]
    assert [piece.usage_metadata["total_tokens"] for piece in pieces] == [23 * N, 4 * N]
    assert counted(events)["on_tool_end"] == 1


# LangGraph's modes


def graph_of(node: Any) -> Any:
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()


def streamed(graph: Any, how: str, mode: Any, config: Any = None, **settings: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [part async for part in graph.astream(ASKED, config, stream_mode=mode, **settings)]

    if how == "async":
        return asyncio.run(collect())
    return list(graph.stream(ASKED, config, stream_mode=mode, **settings))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("kind", AGENTS)
def test_messages_of_an_agent_carry_the_usage_of_their_searches(kind: str, how: str) -> None:
    parts = [message for message, _ in streamed(AGENTS[kind](), how, "messages")]
    said = [message for message in parts if message.type != "tool"]
    assert [(message.text, message.usage_metadata["total_tokens"]) for message in said] == [("", 23 * N), ("4", 4 * N)]
    assert len({message.id for message in said}) == 2


def chunks(model: Any, state: Any) -> Any:
    whole = None
    for chunk in model.stream(state["messages"]):
        whole = chunk if whole is None else whole + chunk
    return {"messages": [whole]}


async def achunks(model: Any, state: Any) -> Any:
    whole: Any = None
    async for chunk in model.astream(state["messages"]):
        whole = chunk if whole is None else whole + chunk
    return {"messages": [whole]}


def of_model(way: str) -> Any:
    """A node that calls a model which searches."""
    model = ScaledChatModel(saying(), n=N)

    async def ainvoke(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def astream(state: Any) -> Any:
        return await achunks(model, state)

    nodes: dict[str, Any] = {
        "invoke": lambda state: {"messages": [model.invoke(state["messages"])]},
        "stream": lambda state: chunks(model, state),
        "ainvoke": ainvoke,
        "astream": astream,
        "bound": lambda state: {"messages": [model.bind(stop=["x"]).invoke(state["messages"])]},
    }
    return nodes[way]


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream", "bound"])
def test_messages_of_a_model_come_once_with_the_usage_of_the_search(way: str) -> None:
    counter = UsageMetadataCallbackHandler()
    parts = streamed(
        graph_of(of_model(way)), "async" if way.startswith("a") else "sync", "messages", {"callbacks": [counter]}
    )
    assert [(m.text, m.usage_metadata) for m, _ in parts] == [
        ("4", {"input_tokens": 3 * N, "output_tokens": N, "total_tokens": 4 * N})
    ]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_chunks_carry_usage_and_handlers_count_each_call_once(server: LoopbackServer, how: str) -> None:
    counter = UsageMetadataCallbackHandler()
    model = ScaledChatModel(openai(server), n=N)

    async def collect() -> list[Any]:
        return [chunk async for chunk in model.astream("q", {"callbacks": [counter]})]

    before = server.wait().tokens
    seen = asyncio.run(collect()) if how == "async" else list(model.stream("q", {"callbacks": [counter]}))
    took = server.wait().tokens - before
    assert sum((chunk.usage_metadata or {}).get("total_tokens", 0) for chunk in seen) == took
    assert [usage["total_tokens"] for usage in counter.usage_metadata.values()] == [took]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_messages_of_a_chain_in_a_node_are_the_winners(how: str) -> None:
    scaled = scale(
        PROMPT | saying("1", "2", "3") | StrOutputParser(), strategy=BestOfN(n=3), verifier=lambda s: s == "2"
    )

    def node(state: Any) -> Any:
        scaled.invoke({"q": 1})
        return {}

    async def anode(state: Any) -> Any:
        await scaled.ainvoke({"q": 1})
        return {}

    parts = streamed(graph_of(node if how == "sync" else anode), how, "messages")
    assert [(m.text, m.usage_metadata) for m, _ in parts] == [("2", USAGE)]
    assert parts[0][1]["langgraph_node"] == "node"


def test_a_model_that_asks_for_no_stream_is_not_shown() -> None:
    hushed = scale(saying().with_config(tags=["nostream"]) | StrOutputParser(), n=N)
    assert not streamed(graph_of(RunnableLambda(lambda state: "q") | hushed | (lambda text: {})), "sync", "messages")


def writes(state: Any) -> Any:
    get_stream_writer()("a write of a candidate")
    return {"messages": [saying().invoke("q")]}


CUSTOM: dict[str, Callable[[], Any]] = {
    "a chain": lambda: graph_of(scale(RunnableLambda(writes), n=N)),
    "a chain in a function": lambda: graph_of(lambda state: scale(RunnableLambda(writes), n=N).invoke(state)),
    "a graph": lambda: graph_of(scale(graph_of(writes), n=N)),
    "a graph in a function": lambda: graph_of(lambda state: scale(graph_of(writes), n=N).invoke(state)),
    "a branch": lambda: graph_of(scale(RunnableBranch((bool, RunnableLambda(writes)), RunnableLambda(writes)), n=N)),
    "an agent": lambda: create_agent(saying(), [], middleware=[TestTimeScaling(n=N), Writes()]),
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("kind", CUSTOM)
def test_a_custom_stream_has_progress_only(kind: str, how: str) -> None:
    for subgraphs in (False, True):
        seen = streamed(CUSTOM[kind](), how, "custom", subgraphs=subgraphs)
        parts = [part[1] if subgraphs else part for part in seen]
        assert sorted(part["tts"]["candidate"] for part in parts) == list(range(N))
    shown = streamed(CUSTOM[kind](), how, "custom", SHOWN, subgraphs=True)
    assert sum(isinstance(part, str) for _, part in shown) >= N


def test_of_graphs_inside_only_the_winners_steps_are_streamed() -> None:
    modes = ["updates", "values", "tasks", "messages"]
    inner = graph_of(writes)
    scaled = graph_of(scale(inner, n=N))
    bare = streamed(graph_of(inner), "sync", modes, subgraphs=True)
    ours = streamed(scaled, "sync", modes, subgraphs=True)
    assert Counter(mode for _, mode, _ in ours) == Counter(mode for _, mode, _ in bare)
    shown = streamed(scaled, "sync", modes, SHOWN, subgraphs=True)
    assert Counter(mode for _, mode, _ in shown)["messages"] == N


def test_sends_show_one_answer_each() -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [scale(saying(), n=N).invoke("q")]})
    graph.add_conditional_edges(START, lambda state: [Send("ask", state)] * 2, ["ask"])
    seen = streamed(graph.compile(), "sync", ["messages", "custom"])
    assert Counter(mode for mode, _ in seen) == {"messages": 2, "custom": 2 * N}
