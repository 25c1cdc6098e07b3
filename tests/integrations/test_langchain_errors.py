"""Errors keep their types: everything in LangChain and LangGraph dispatches on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, TypedDict

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langgraph")
pytest.importorskip("aiohttp")

import httpx
import openai
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale

from tts_plugins import Budget, SelfConsistency
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted
from tts_plugins.testing.loopback import Fault, LoopbackServer


class State(TypedDict):
    said: str


@pytest.fixture(scope="module")
def shared() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(shared: LoopbackServer) -> LoopbackServer:
    shared.reset()
    shared.configure(reply="4", faults=[])
    return shared


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=16, **settings)


def scaled(kind: str, model: Any) -> Any:
    return scale(model, n=2) if kind == "chain" else ScaledChatModel(model, n=2)


@pytest.mark.parametrize("kind", ["chain", "model"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_fallbacks_and_retries_see_the_providers_error(server: LoopbackServer, kind: str, how: str) -> None:
    with asyncio.Runner() as runner:
        own = httpx.AsyncClient()  # ChatOpenAI leaves its own open
        model = scaled(kind, chat(server, http_async_client=own))

        def ask(runnable: Any) -> Any:
            return runnable.invoke("q") if how == "sync" else runner.run(runnable.ainvoke("q"))

        server.configure(faults=Fault.status(429))
        instead = RunnableLambda(lambda _: "instead")
        assert ask(model.with_fallbacks([instead], exceptions_to_handle=(openai.RateLimitError,))) == "instead"
        with pytest.raises(openai.RateLimitError) as caught:
            ask(model.with_fallbacks([instead], exceptions_to_handle=(openai.BadRequestError,)))
        assert caught.value.response.status_code == 429 and isinstance(caught.value.__cause__, AllCandidatesFailed)
        server.reset()
        server.configure(reply="4", faults=[Fault.status(503)] * 2)
        kinds = (openai.InternalServerError,)
        again = model.with_retry(retry_if_exception_type=kinds, wait_exponential_jitter=False, stop_after_attempt=2)
        assert ask(again).content == "4" and server.counts.requests == 4
        runner.run(own.aclose())


@pytest.mark.parametrize("kind", ["chain", "model"])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (402, None), (429, "insufficient_quota")])
def test_a_refused_key_or_used_up_account_ends_the_search_at_once(
    server: LoopbackServer, kind: str, after: int, status: int, code: str | None
) -> None:
    body = json.dumps({"error": {"message": "no more", "code": code}})
    faults: list[Fault | None] = [None] * after
    server.configure(faults=[*faults, *[Fault.status(status, body=body)] * 30])
    wrapped = chat(server)
    strategy = SelfConsistency(n=12, wave=1)
    model: Any = scale(wrapped, strategy=strategy) if kind == "chain" else ScaledChatModel(wrapped, strategy=strategy)
    if not after:
        with pytest.raises(openai.APIStatusError) as caught:
            model.invoke("q")
        assert caught.value.status_code == status
    else:
        if kind == "chain":
            result = model.solve("q")
            text, stopped, warnings = result.text, result.stopped, result.warnings
        else:
            message = model.invoke("q")
            text, said = message.content, message.response_metadata["tts"]
            stopped, warnings = said["stopped"], said["warnings"]
        assert (text, stopped) == ("4", "error") and str(status) in warnings[0]
    assert server.counts.requests == after + 1


def test_a_tool_that_met_a_401_on_the_web_ends_nothing(server: LoopbackServer) -> None:
    asked = list[int]()

    def fetched(_: Any) -> str:
        asked.append(1)
        if len(asked) == 2:
            request = httpx.Request("GET", "https://example.com/a")
            raise httpx.HTTPStatusError("401", request=request, response=httpx.Response(401, request=request))
        return "4"

    assert scale(RunnableLambda(fetched), strategy=SelfConsistency(n=4, wave=1)).invoke("q") == "4"
    assert len(asked) == 4


def test_parsers_errors_keep_what_they_carry(server: LoopbackServer) -> None:
    with pytest.raises(OutputParserException) as caught:
        server.configure(reply="no json")
        scale(chat(server) | JsonOutputParser(), n=3).invoke("q")
    assert caught.value.llm_output == "no json" and "all 3 candidates failed" in caught.value.__notes__[0]


def test_a_middleware_that_retries_sees_the_type(server: LoopbackServer) -> None:
    server.configure(faults=[Fault.status(429)] * 3)
    retry = ModelRetryMiddleware(max_retries=1, retry_on=(openai.RateLimitError,), initial_delay=0.0, jitter=False)
    agent = create_agent(chat(server), [], middleware=[retry, TestTimeScaling(n=3)])
    assert agent.invoke({"messages": [("user", "q")]})["messages"][-1].content == "4" and server.counts.requests == 6


def test_langgraph_retries_what_it_retries_and_never_an_exhausted_budget(server: LoopbackServer) -> None:
    calls: list[str] = []

    def graph(runnable: Any, policy: RetryPolicy) -> Any:
        def node(state: State) -> Any:
            calls.append("node")
            return {"said": runnable.invoke("q").content}

        return StateGraph(State).add_node("n", node, retry_policy=policy).add_edge(START, "n").compile()

    server.configure(faults=[Fault.status(503)] * 2)
    policy = RetryPolicy(initial_interval=0.01, retry_on=openai.InternalServerError)
    assert graph(scale(chat(server), n=2), policy).invoke({"said": ""})["said"] == "4" and len(calls) == 2
    with pytest.raises(BudgetExhausted):
        graph(scale(chat(server), n=2, budget=Budget(tokens=5)), RetryPolicy(initial_interval=0.01)).invoke(
            {"said": ""}
        )
    assert len(calls) == 3


def test_reasons_of_different_kinds_are_all_candidates_failed() -> None:
    counts: list[int] = []

    def chain(value: str) -> str:
        counts.append(1)
        raise (KeyError("a") if len(counts) % 2 else OSError("b"))

    with pytest.raises(AllCandidatesFailed, match="all 2 candidates failed"):
        scale(chain, n=2, concurrency=1).invoke("q")
