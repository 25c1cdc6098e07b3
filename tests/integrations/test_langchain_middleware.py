"""`TestTimeScaling` in real agents over a real ChatOpenAI on the loopback server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("langchain_openai")
pytest.importorskip("aiohttp")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling

from tts_plugins import BestOfN, Budget, Ledger, Revision, SelfConsistency
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.testing.loopback import LoopbackServer, Reply

# langchain-openai's: connections that it leaves open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def agent_reply(body: dict[str, Any], index: int) -> str | Reply:
    """One of four calls the tool wrongly; after a tool's answer, it is repeated in words."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"The sum is {last['content']}"
    return Reply(None, tool_calls=[{"name": "add", "arguments": {"a": 9 if index % 4 == 1 else 2, "b": 3}}])


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=agent_reply, indexing="arrival", latency=0.02) as running:
        yield running


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    settings = {"model": "m", "max_tokens": 32, "max_retries": 0, **settings}
    return ChatOpenAI(base_url=server.base_url, api_key="-", **settings)


def agent(server: LoopbackServer, *middleware: Any, **settings: Any) -> Any:
    return create_agent(chat(server), [add], middleware=middleware, **settings)


QUESTION: Any = {"messages": [HumanMessage("How much is 2 + 3?")]}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:  # one for all: ChatOpenAI's shared client belongs to the first loop that used it
        yield runner


Run = Callable[..., Any]


@pytest.fixture
def run(loop: asyncio.Runner) -> Run:
    def run(app: Any, how: str, config: Any = None) -> Any:
        return app.invoke(QUESTION, config) if how == "sync" else loop.run(app.ainvoke(QUESTION, config))

    return run


@pytest.mark.parametrize("how", ["sync", "async"])
def test_votes_on_tool_calls(server: LoopbackServer, run: Run, how: str) -> None:
    server.configure(latency=0.2)
    state = run(agent(server, TestTimeScaling(strategy=SelfConsistency(n=4))), how)
    assert state["messages"][1].tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert state["messages"][-1].text == "The sum is 5"
    counts = server.wait()
    assert (counts.choices, counts.peak) == (8, 4), "two turns of four calls, all four at once"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_temperature_zero_is_refused_before_anything_is_paid(server: LoopbackServer, run: Run, how: str) -> None:
    cold = create_agent(chat(server, temperature=0), [add], middleware=[TestTimeScaling(strategy=SelfConsistency(n=3))])
    with pytest.raises(ConfigurationError, match=r"TestTimeScaling: n=3 samples at temperature=0"):
        run(cold, how)
    assert server.requests == []


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_verifier_sees_the_whole_request(server: LoopbackServer, run: Run, how: str) -> None:
    seen: list[Any] = []

    def check(problem: Any, candidate: Any) -> float:
        request = problem.metadata["request"]
        seen.append((problem.content[0]["role"], [t.name for t in request.tools], type(candidate.output)))
        return 1.0 if candidate.output.tool_calls and candidate.output.tool_calls[0]["args"]["a"] == 9 else 0.5

    middleware = TestTimeScaling(strategy=BestOfN(n=4), verifier=check)
    state = run(agent(server, middleware, system_prompt="be exact"), how)
    assert state["messages"][1].tool_calls[0]["args"]["a"] == 9
    assert seen[0] == ("system", ["add"], AIMessage) and state["messages"][1].response_metadata["tts"]["score"] == 1.0


@pytest.mark.parametrize("how", ["sync", "async"])
def test_no_candidates_in_the_message_stream(server: LoopbackServer, loop: asyncio.Runner, how: str) -> None:
    app = agent(server, TestTimeScaling(strategy=SelfConsistency(n=4)))

    async def stream() -> list[Any]:
        return [item async for item in app.astream(QUESTION, stream_mode="messages")]

    items = loop.run(stream()) if how == "async" else list(app.stream(QUESTION, stream_mode="messages"))
    said = [message for message, _ in items if message.type in ("ai", "AIMessageChunk")]
    assert len(said) == 2 and said[-1].text == "The sum is 5", "each turn's chosen message, once, and nothing else"
    assert not any(r.body.get("stream") for r in server.requests), "nobody watches candidates, so none streams"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_ledger_is_the_servers_count(server: LoopbackServer, run: Run, how: str) -> None:
    account, handler = Ledger(Budget(tokens=100_000)), UsageMetadataCallbackHandler()
    app = agent(server, TestTimeScaling(strategy=SelfConsistency(n=4), budget=account))
    state = run(app, how, {"callbacks": [handler]})
    tokens = server.wait().tokens
    assert account.usage.tokens == tokens and account.usage.exact and account.open_holds == 0
    assert sum(u["total_tokens"] for u in handler.usage_metadata.values()) == tokens
    assert sum(m.usage_metadata["total_tokens"] for m in state["messages"] if isinstance(m, AIMessage)) == tokens


@pytest.mark.parametrize("how", ["sync", "async"])
def test_one_budget_for_the_whole_run(server: LoopbackServer, run: Run, how: str) -> None:
    app = agent(server, TestTimeScaling(strategy=SelfConsistency(n=4), budget=Budget(calls=6)))
    for _ in range(2):
        state = run(app, how)
        assert state["messages"][-1].response_metadata["tts"]["candidates"] == 2
        assert state["tts_spent"]["TestTimeScaling"]["calls"] == 6
        assert "usd" not in state["tts_spent"]["TestTimeScaling"], "it is not known what they cost"
    assert server.wait().choices == 12, "it is fresh for each run"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_when_the_budget_is_gone(server: LoopbackServer, run: Run, how: str) -> None:
    with pytest.raises(BudgetExhausted, match="no calls left"):
        run(agent(server, TestTimeScaling(n=4, budget=Budget(calls=4))), how)
    state = run(agent(server, TestTimeScaling(n=4, budget=Budget(calls=4), when_exhausted="end")), how)
    assert "budget" in state["messages"][-1].text and server.wait().choices == 8


def test_a_budget_survives_an_interrupt_and_a_checkpoint(server: LoopbackServer) -> None:
    @tool("add")
    def asking(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b + int(interrupt("add what?"))

    middleware = TestTimeScaling(strategy=SelfConsistency(n=4), budget=Budget(calls=6))
    app = create_agent(chat(server), [asking], middleware=[middleware], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    assert app.invoke(QUESTION, config)["__interrupt__"]
    state = app.invoke(Command(resume=10), config)
    assert state["messages"][-1].text == "The sum is 15" and server.wait().choices == 6
    app.invoke(QUESTION, config)
    assert server.wait().choices == 10, "the next turn of the conversation is a run of its own"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupts_inside_a_model_call_pass_through(server: LoopbackServer, run: Run, how: str) -> None:
    def check(output: Any) -> float:
        interrupt("is it good?")
        return 1.0

    middleware = TestTimeScaling(strategy=BestOfN(n=1), verifier=check)
    app = create_agent(chat(server), [], middleware=[middleware], checkpointer=InMemorySaver())
    assert run(app, how, {"configurable": {"thread_id": "1"}})["__interrupt__"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupts_of_what_stands_after_it_pass_through(server: LoopbackServer, run: Run, how: str) -> None:
    error: BaseException = GraphInterrupt(("wait",))

    class Stops(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            raise error

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            raise error

    app = agent(server, TestTimeScaling(n=2), Stops(), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    run(app, how, config)
    assert app.get_state(config).next == ("model",), "LangGraph takes it for what it is: it waits, and has not failed"
    if how == "sync":  # asyncio itself lets such an error out of every task
        error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run(app, how, {"configurable": {"thread_id": "2"}})
    assert server.requests == []


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_candidate_is_a_child_run(server: LoopbackServer, run: Run, how: str) -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: dict[Any, str] = {}
            self.scores: list[Any] = []
            self.calls: list[Any] = []

        def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            self.names[run_id] = str(kwargs.get("name"))

        def on_chain_end(self, outputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            if self.names[run_id].startswith("candidate"):
                self.scores.append((self.names[run_id], outputs["score"]))

        def on_chat_model_start(
            self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, **kwargs: Any
        ) -> None:
            self.calls.append((self.names[parent_run_id], kwargs["metadata"]["tts_candidate"]))

    heard = Heard()
    middleware = TestTimeScaling(strategy=BestOfN(n=3), verifier=lambda message: 0.5)
    run(create_agent(chat(server), [], middleware=[middleware]), how, {"callbacks": [heard]})
    assert sorted(heard.calls) == [(f"candidate {i}", i) for i in range(3)]
    assert sorted(heard.scores) == [(f"candidate {i}", 0.5) for i in range(3)]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_two_instances_need_two_names_and_the_first_one_counts_both(server: LoopbackServer, run: Run, how: str) -> None:
    first = TestTimeScaling(strategy=SelfConsistency(n=2), name="outer", budget=Budget(calls=100))
    second = TestTimeScaling(strategy=SelfConsistency(n=3), name="inner")
    state = run(agent(server, first, second), how)
    assert server.wait().choices == 12 and state["tts_spent"]["outer"]["calls"] == 12
    assert not state["tts_spent"]["inner"], "what the chosen candidate alone spent would say little"
    with pytest.raises(AssertionError, match="duplicate"):
        agent(server, TestTimeScaling(), TestTimeScaling())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_first_ones_budget_holds_over_another_inside(server: LoopbackServer, run: Run, how: str) -> None:
    first = TestTimeScaling(strategy=SelfConsistency(n=5), name="outer", budget=Budget(calls=4), when_exhausted="end")
    state = run(agent(server, first, TestTimeScaling(strategy=SelfConsistency(n=2), name="inner")), how)
    assert server.wait().choices == 4 == state["tts_spent"]["outer"]["calls"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_budget_inside_another_one_is_refused(server: LoopbackServer, run: Run, how: str) -> None:
    first = TestTimeScaling(strategy=SelfConsistency(n=5), name="outer")
    inner = TestTimeScaling(strategy=SelfConsistency(n=2), name="inner", budget=Budget(calls=2))
    with pytest.raises(ConfigurationError, match=r"inner: budget=.*calls=2.* inside another .*stands first"):
        run(agent(server, first, inner), how)
    assert server.requests == []
    second = TestTimeScaling(strategy=SelfConsistency(n=2), name="inner")
    state = run(agent(server, first, second), how, {"configurable": {"tts_budget_calls": 30}})
    assert state["tts_spent"]["outer"]["calls"] == 20, "what a call's config says is for the outermost search"


class Sum(BaseModel):
    value: int


def test_structured_responses_are_kept(server: LoopbackServer) -> None:
    def speak(body: dict[str, Any], index: int) -> Reply:
        return Reply(None, tool_calls=[{"name": "Sum", "arguments": json.dumps({"value": 5 if index else 4})}])

    server.configure(reply=speak, indexing="arrival")
    app = create_agent(
        chat(server), [], response_format=ToolStrategy(Sum),
        middleware=[TestTimeScaling(strategy=SelfConsistency(n=3))],
    )  # fmt: skip
    assert app.invoke(QUESTION)["structured_response"] == Sum(value=5)


def test_langchains_own_limit_counts_turns_and_not_samples(server: LoopbackServer) -> None:
    limit = ModelCallLimitMiddleware(run_limit=2)
    state = agent(server, limit, TestTimeScaling(strategy=SelfConsistency(n=4))).invoke(QUESTION)
    assert state["messages"][-1].text == "The sum is 5" and server.wait().choices == 8


def test_configurable_of_one_call(server: LoopbackServer) -> None:
    agent(server, TestTimeScaling(n=4)).invoke(QUESTION, {"configurable": {"tts_n": 2}})
    assert server.wait().choices == 4


def test_a_profile_gives_what_is_not_set(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tts-plugins.toml").write_text("[profiles.few.strategy]\ntype = 'self-consistency'\nn = 2\n")
    agent(server, TestTimeScaling(profile="few")).invoke(QUESTION)
    create_agent(ScaledChatModel(chat(server), tts_profile="few"), [add]).invoke(QUESTION)
    assert server.wait().choices == 8


def test_bad_settings() -> None:
    with pytest.raises(ConfigurationError, match="when_exhausted='stop'"):
        TestTimeScaling(when_exhausted="stop")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'nope' is not known"):
        TestTimeScaling(strategy="nope")


def corrected(body: dict[str, Any], index: int) -> str | Reply:
    """Calls the tool wrongly until it is told of it; after a tool's answer, it is repeated in words."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"The sum is {last['content']}"
    if "tool" in [m["role"] for m in body["messages"]]:
        return "The sum is five, as was asked"
    return Reply(None, tool_calls=[{"name": "add", "arguments": {"a": 2 if "wrong" in last["content"] else 9, "b": 3}}])


def judged(problem: Any, candidate: Any) -> tuple[float, str]:
    calls = candidate.output.tool_calls
    if calls:
        right = calls[0]["args"] == {"a": 2, "b": 3}
        return float(right), "" if right else "wrong: a has to be 2"
    return 0.9, "wrong: say it in words"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_revision_of_each_model_call_tool_calls_included(server: LoopbackServer, run: Run, how: str) -> None:
    server.configure(reply=corrected)
    strategy = Revision(chains=1, rounds=2, select="best")
    state = run(agent(server, TestTimeScaling(strategy=strategy, verifier=judged, budget=Budget(calls=9))), how)
    first, second, third, fourth = [r.body["messages"] for r in server.requests]
    assert [m["role"] for m in second] == ["user", "assistant", "user"] and len(first) == 1
    assert json.loads(second[1]["content"]) == [{"args": {"a": 9, "b": 3}, "name": "add"}]
    assert "wrong: a has to be 2" in second[2]["content"]
    assert [m["role"] for m in third] == ["user", "assistant", "tool"], "the state has the chosen message alone"
    assert [m["role"] for m in fourth[3:]] == ["assistant", "user"] and "say it in words" in fourth[-1]["content"]
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][1].tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert state["tts_spent"]["TestTimeScaling"]["calls"] == 4


@pytest.mark.parametrize("how", ["sync", "async"])
def test_revisions_are_within_the_budget_of_the_whole_run(server: LoopbackServer, run: Run, how: str) -> None:
    server.configure(reply=corrected)
    middleware = TestTimeScaling(
        strategy=Revision(chains=1, rounds=2, select="best"), verifier=judged, budget=Budget(calls=3),
    )  # fmt: skip
    state = run(agent(server, middleware), how)
    assert len(server.requests) == 3 and state["messages"][-1].text == "The sum is 5"
    assert state["messages"][-1].response_metadata["tts"]["stopped"] == "budget"


def test_revision_by_a_function_of_the_messages(server: LoopbackServer, run: Run) -> None:
    server.configure(reply=corrected)

    def again(problem: Any, attempts: Any) -> list[Any]:
        return [*problem.metadata["input"], HumanMessage(f"That was wrong: {attempts[-1].feedback}")]

    strategy = Revision(chains=1, rounds=2, select="best")
    run(agent(server, TestTimeScaling(strategy=strategy, verifier=judged, revision=again)), "sync")
    assert server.requests[1].body["messages"][-1]["content"] == "That was wrong: wrong: a has to be 2"
    with pytest.raises(ConfigurationError, match="revision='attempts' must be a function"):
        TestTimeScaling(revision="attempts")  # type: ignore[arg-type]
