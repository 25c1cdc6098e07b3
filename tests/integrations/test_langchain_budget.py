"""The budget holds whatever user code makes of a refusal, and a judge reserves no more than it can take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("langchain")
pytest.importorskip("aiohttp")

import httpx
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale

from tts_plugins import BestOfN, Budget, SelfConsistency
from tts_plugins.errors import BudgetExhausted
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.verifiers import LLMJudge

STATIC = "I cannot say."
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # langchain-openai's: connections left open


@pytest.fixture(scope="module")
def shared() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(shared: LoopbackServer) -> LoopbackServer:
    shared.reset()
    shared.configure(reply="Answer: 4", faults=[])
    return shared


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    settings = {"model": "m", "max_retries": 0, "max_tokens": 200, **settings}
    return ChatOpenAI(base_url=server.base_url, api_key="-", **settings)


def fallback(model: Any) -> Any:
    return (model | StrOutputParser()).with_fallbacks([RunnableLambda(lambda _: STATIC)])


def excepting(model: Any) -> Any:
    def run(value: Any) -> str:
        try:
            return str(model.invoke(value).text)
        except Exception:  # noqa: BLE001 - as users write it
            return STATIC

    async def arun(value: Any) -> str:
        try:
            return str((await model.ainvoke(value)).text)
        except Exception:  # noqa: BLE001
            return STATIC

    return RunnableLambda(run, afunc=arun)


def inside(model: Any) -> Any:
    """A search inside of the search, on the account of the one around it."""
    return fallback(ScaledChatModel(model, n=2))


def solve(scaled: Any, how: str, value: Any = "2 + 2?") -> Any:
    return scaled.solve(value) if how == "sync" else asyncio.run(scaled.asolve(value))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("chain", [fallback, excepting, inside])
def test_a_refusal_that_user_code_swallows_is_no_candidate(server: LoopbackServer, chain: Any, how: str) -> None:
    model = chat(server, http_async_client=httpx.AsyncClient())
    result = solve(scale(chain(model), strategy=SelfConsistency(n=8), budget=Budget(calls=4)), how)
    assert {str(c.text) for c in result.candidates} == {"Answer: 4"}
    assert result.stopped == "budget" and result.usage.calls <= 4 == server.wait().choices


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_was_refused_for_now_is_waited_for(server: LoopbackServer, how: str) -> None:
    model = chat(server, http_async_client=httpx.AsyncClient())
    result = solve(scale(fallback(model), strategy=SelfConsistency(n=8), budget=Budget(tokens=700)), how)
    assert {str(c.text) for c in result.candidates} == {"Answer: 4"} and len(result.candidates) == 8
    assert result.usage.tokens == server.wait().tokens


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_verifiers_fallback_is_no_verdict(server: LoopbackServer, how: str) -> None:
    model = chat(server, http_async_client=httpx.AsyncClient())
    server.configure(reply="0.5")
    judge = RunnableLambda(lambda asked: "score it") | model | StrOutputParser()
    judge = judge.with_fallbacks([RunnableLambda(lambda _: "0.9")])
    result = solve(scale(model, strategy=BestOfN(n=4), verifier=judge, budget=Budget(calls=6)), how)
    assert {c.score for c in result.candidates} == {0.5} and result.stopped == "budget"


def test_a_middleware_that_goes_on_after_errors_makes_no_candidate_of_them(server: LoopbackServer) -> None:
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False)  # its default goes on with a message
    scaling = TestTimeScaling(strategy=SelfConsistency(n=6), budget=Budget(calls=2))
    agent = create_agent(chat(server), [], middleware=[scaling, retry])
    message = agent.invoke({"messages": [("user", "2 + 2?")]})["messages"][-1]
    assert message.content == "Answer: 4" and message.response_metadata["tts"]["candidates"] == 2


JUDGED = (
    '{"key": "%s", "critique": "right", "score": 5, "criteria": {"correctness": 5, "completeness": 5, "clarity": 5}}'
)


@pytest.mark.parametrize("limit", [16, 64, 512])
def test_a_judge_reserves_by_what_it_can_be_shown(server: LoopbackServer, limit: int) -> None:
    """Regression: 36,000 tokens for each candidate, whatever the chain could write, so that one ran at a time."""
    judge = LLMJudge(OpenAICompatibleModel("judge", base_url=server.base_url, max_tokens=limit, temperature=0.0))
    chains = [chat(server, max_tokens=64), chat(server, max_tokens=64) | StrOutputParser()]
    for chain in chains:
        server.reset()
        server.configure(reply=verdicts, latency=0.05)
        result = scale(chain, strategy=BestOfN(n=8), verifier=judge, budget=Budget(tokens=60_000)).solve("2 + 2?")
        assert len(result.candidates) == 8 and result.stopped == "complete" and server.counts.peak >= 4


def verdicts(body: Any, index: int) -> str:
    if body["model"] != "judge":
        return "Answer: 4"
    key = re.search(r"carry the key (\S+) are", str(body["messages"]))
    assert key is not None
    return JUDGED % key[1]


def test_an_agent_under_a_judge_ends_when_its_money_is_spent_and_not_before(server: LoopbackServer) -> None:
    judge = LLMJudge(OpenAICompatibleModel("judge", base_url=server.base_url, max_tokens=64, temperature=0.0))
    server.configure(reply=verdicts)
    scaling = TestTimeScaling(strategy=BestOfN(n=3), verifier=judge, budget=Budget(tokens=20_000))
    agent = create_agent(chat(server, max_tokens=64), [], middleware=[scaling])
    state = agent.invoke({"messages": [("user", "2 + 2?")]})
    assert state["messages"][-1].response_metadata["tts"]["candidates"] == 3


def test_a_worst_case_that_does_not_fit_says_which_call_and_what_lowers_it(server: LoopbackServer) -> None:
    with pytest.raises(BudgetExhausted, match=r"m: .*max_tokens=5000"):
        scale(chat(server, max_tokens=5000), n=2, budget=Budget(tokens=3000)).invoke("2 + 2?")
    judge = LLMJudge(OpenAICompatibleModel("judge", base_url=server.base_url, max_tokens=512, temperature=0.0))
    scaled = scale(chat(server, max_tokens=64), n=2, verifier=judge, budget=Budget(tokens=1000))
    with pytest.raises(BudgetExhausted, match=r"[\d,]+ tokens are for a verification by LLMJudge; .*max_tokens"):
        scaled.invoke("2 + 2?")
