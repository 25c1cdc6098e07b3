"""Every call on the account, as the server counted it: real ChatOpenAI, real loopback server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_openai")
pytest.importorskip("aiohttp")

import openai
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langchain_core.tracers.context import _configure_hooks
from langchain_openai import ChatOpenAI, OpenAI
from tts_plugins_langchain import SampleCache, ScaledChatModel, scale
from tts_plugins_langchain.metering import METERED

from tests.waiting import block_until
from tts_plugins import BestOfN, Budget, Candidate, Ledger, Problem, Score, SelfConsistency
from tts_plugins.budget import Bound
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, UnboundedCallError, UnknownPriceError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.protocols import Run
from tts_plugins.testing.loopback import Fault, LoopbackServer

# langchain-openai's: connections that it leaves open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
PROMPT = ChatPromptTemplate.from_template("What is {x} and why do you think so?")


def reply(body: dict[str, Any], index: int) -> str:
    return f"I think that the answer is {index}"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=reply, indexing="arrival", latency=0.005) as running:
        yield running


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    made = InMemoryCache()
    set_llm_cache(made)
    yield made
    set_llm_cache(None)


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    settings = {"model": "m", "max_tokens": 16, "max_retries": 0, **settings}
    return ChatOpenAI(base_url=server.base_url, api_key="-", **settings)


def chain_of(model: Any) -> Any:
    return PROMPT | model | StrOutputParser()


def last(output: str) -> float:
    return int(output.split()[-1]) / 1000


def same(account: Ledger, server: LoopbackServer) -> bool:
    counts, usage = server.wait(), account.usage
    return (
        (usage.prompt_tokens, usage.completion_tokens, usage.calls, usage.exact)
        == (counts.prompt_tokens, counts.completion_tokens, counts.choices, True)
        and account.open_holds == 0
        and account.overshoot.tokens == 0
    )


# exactly what the server counted


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "abatch", "stream", "astream", "events"])
@pytest.mark.parametrize("settings", [{}, {"n": 3}, {"streaming": True, "stream_usage": True}], ids=str)
def test_the_ledger_is_the_servers_count(server: LoopbackServer, how: str, settings: dict[str, Any]) -> None:
    account = Ledger(Budget(tokens=100_000))
    # astream_events makes models stream; a custom base_url streams without usage unless it is asked for
    settings = {"stream_usage": True, **settings} if how == "events" else settings
    if how == "events" and "n" in settings:
        pytest.skip("ChatOpenAI does not stream several choices apart")
    scaled = scale(chain_of(chat(server, **settings)), strategy=BestOfN(n=4), verifier=last, budget=account)

    async def run() -> None:
        if how == "ainvoke":
            await scaled.ainvoke({"x": 1})
        elif how == "abatch":
            await scaled.abatch([{"x": 1}, {"x": 2}])
        elif how == "astream":
            assert len([chunk async for chunk in scaled.astream({"x": 1})]) == 1
        else:
            assert [e async for e in scaled.astream_events({"x": 1}, version="v2")]

    if how in ("invoke", "batch", "stream"):
        value: Any = [{"x": 1}, {"x": 2}] if how == "batch" else {"x": 1}
        list(getattr(scaled, how)(value))
    else:
        asyncio.run(run())
    assert account.usage.calls >= 4 and same(account, server)


def test_a_stream_without_usage_is_charged_at_its_bound(server: LoopbackServer) -> None:
    account = Ledger(Budget(tokens=100_000))
    model = chat(server, streaming=True, stream_usage=False)
    scale(chain_of(model), strategy=BestOfN(n=3), verifier=last, budget=account).invoke({"x": 1})
    assert not account.usage.exact and account.usage.tokens >= server.wait().tokens


def test_a_missing_usage_is_charged_at_its_bound(server: LoopbackServer) -> None:
    server.configure(reply=reply, usage=False, indexing="arrival")
    account = Ledger(Budget(tokens=100_000))
    scale(chain_of(chat(server)), strategy=BestOfN(n=3), verifier=last, budget=account).invoke({"x": 1})
    assert not account.usage.exact and account.usage.completion_tokens == 3 * 16


@pytest.mark.parametrize("variant", ["negative", "huge", "zero", "string"])
def test_an_impossible_usage_is_not_believed(server: LoopbackServer, variant: str) -> None:
    server.configure(reply=reply, usage=variant, indexing="arrival")
    account = Ledger()
    model = chat(server)
    with contextlib.suppress(AllCandidatesFailed):  # langchain-openai itself refuses some of them
        scale(chain_of(model), strategy=BestOfN(n=2), verifier=last, budget=account).invoke({"x": 1})
    assert account.usage.tokens >= server.wait().tokens and account.open_holds == 0


def test_completion_models_are_metered(server: LoopbackServer) -> None:
    account = Ledger()
    llm = OpenAI(base_url=server.base_url, api_key="-", model="m", max_tokens=16, max_retries=0)
    scale(llm, strategy=BestOfN(n=3), verifier=last, budget=account).invoke("What is it?")
    assert same(account, server)


def test_several_models_branches_and_steps_are_metered(server: LoopbackServer) -> None:
    account = Ledger(Budget(tokens=100_000))
    first, second = chat(server), chat(server, model="other")
    chain = RunnableParallel(a=chain_of(first), b=chain_of(second)) | (lambda d: d["a"]) | first | StrOutputParser()
    scale(chain, strategy=BestOfN(n=3), verifier=last, budget=account).invoke({"x": 1})
    assert account.usage.calls == 9 and same(account, server)


def test_a_model_called_without_any_config_is_metered(server: LoopbackServer) -> None:
    account, model = Ledger(), chat(server)

    def step(value: dict[str, Any]) -> str:
        with ContextThreadPoolExecutor(2) as pool:  # raw threads would lose callbacks, and with them the count
            found = list(pool.map(lambda x: model.invoke(str(x), config={"callbacks": []}).content, [1, 2]))
        return str(found[-1])

    scale(RunnableLambda(step), strategy=BestOfN(n=2), verifier=last, budget=account).invoke({"x": 1})
    assert account.usage.calls == 4 and same(account, server)


def test_a_runnable_verifier_is_metered_as_the_verifier(server: LoopbackServer) -> None:
    account = Ledger()
    judge = PROMPT.partial(x="this") | chat(server) | StrOutputParser() | RunnableLambda(lambda text: last(text))
    result = scale(chain_of(chat(server)), strategy=BestOfN(n=3), verifier=judge, budget=account).solve({"x": 1})
    assert result.usage.by_role["model"].calls == 3 == result.usage.by_role["verifier"].calls and same(account, server)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_searches_inside_searches_are_counted_once(server: LoopbackServer, how: str) -> None:
    account = Ledger(Budget(tokens=100_000))
    inner = scale(chain_of(chat(server)), strategy=BestOfN(n=3), verifier=last)
    outer = scale(inner | RunnableLambda(str), strategy=BestOfN(n=3), verifier=last, budget=account)
    outer.invoke({"x": 1}) if how == "sync" else asyncio.run(outer.ainvoke({"x": 1}))
    assert account.usage.calls == 9 and same(account, server)


def test_the_users_own_usage_handler_sees_each_call_once(server: LoopbackServer) -> None:
    handler = UsageMetadataCallbackHandler()
    scale(chain_of(chat(server)), strategy=BestOfN(n=4), verifier=last).invoke({"x": 1}, {"callbacks": [handler]})
    counted = sum(usage["total_tokens"] for usage in handler.usage_metadata.values())
    assert counted == server.wait().tokens


class Forgetful(Runnable[Any, Any]):
    """A step that does not pass its config on."""

    def __init__(self, model: ChatOpenAI) -> None:
        self.model = model

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """The model's answer."""
        return self.model.invoke(input)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """The model's answer."""
        return await self.model.ainvoke(input)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_steps_that_do_not_pass_their_config_on_are_seen(
    server: LoopbackServer, asynchronous: bool, alone: bool
) -> None:
    account, handler = Ledger(Budget(tokens=10_000)), UsageMetadataCallbackHandler()
    model = Forgetful(chat(server))
    scaled = scale(model if alone else PROMPT | model | StrOutputParser(), n=3, budget=account)
    asked: Any = "What is 1?" if alone else {"x": 1}
    config: Any = {"callbacks": [handler]}
    if asynchronous:
        asyncio.run(scaled.ainvoke(asked, config))
    else:
        scaled.invoke(asked, config)
    assert same(account, server)
    (usage,) = handler.usage_metadata.values()
    assert usage["total_tokens"] == account.spent.tokens


def test_one_hook_is_registered_and_none_leaks(server: LoopbackServer) -> None:
    before = len(_configure_hooks)
    scale(chain_of(chat(server)), strategy=BestOfN(n=2), verifier=last).batch([{"x": i} for i in range(5)])
    assert len(_configure_hooks) == before
    assert sum(hook[0] is METERED for hook in _configure_hooks) == 1 and METERED.get() is None


# the budget holds


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_budget_of_calls_holds(server: LoopbackServer, how: str, caplog: pytest.LogCaptureFixture) -> None:
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=8), verifier=last, budget=Budget(calls=5))
    with caplog.at_level(logging.WARNING):
        result = scaled.solve({"x": 1}) if how == "sync" else asyncio.run(scaled.asolve({"x": 1}))
    assert (result.stopped, len(result.candidates), server.wait().choices) == ("budget", 5, 5)
    assert not caplog.records, "a refusal is not an error of a handler"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_who_finds_no_room_waits_for_others_to_settle(server: LoopbackServer, how: str) -> None:
    # One call may take 16 + the prompt's bytes, and takes 17 in fact: two fit at once, and all eight one by one.
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=8), verifier=last, budget=Budget(tokens=400))
    result = scaled.solve({"x": 1}) if how == "sync" else asyncio.run(scaled.asolve({"x": 1}))
    assert len(result.candidates) == 8 and result.usage.tokens == server.wait().tokens <= 400


def test_a_chain_is_stopped_in_the_middle(server: LoopbackServer) -> None:
    model, reached = chat(server), []
    chain = chain_of(model) | RunnableLambda(lambda t: reached.append("half") or t) | model | StrOutputParser()
    account = Ledger(Budget(calls=1))
    with pytest.raises(BudgetExhausted):
        scale(chain, n=1, verifier=last, budget=account).invoke({"x": 1})
    assert reached == ["half"] and server.wait().choices == 1 and same(account, server)


def test_a_fallback_inside_the_chain_does_not_get_around_it(server: LoopbackServer) -> None:
    chain = chain_of(chat(server).with_fallbacks([chat(server, model="other")]))
    result = scale(chain, strategy=BestOfN(n=4), verifier=last, budget=Budget(calls=2)).solve({"x": 1})
    assert (result.stopped, server.wait().choices) == ("budget", 2)


def test_limits_that_cannot_hold_are_errors(server: LoopbackServer) -> None:
    with pytest.raises(UnboundedCallError, match="max_tokens"):
        scale(chain_of(chat(server, max_tokens=None)), n=2, verifier=last, budget=Budget(tokens=100)).invoke({"x": 1})
    with pytest.raises(UnknownPriceError, match="price"):
        scale(chain_of(chat(server)), n=2, verifier=last, budget=Budget(usd=1.0)).invoke({"x": 1})
    assert server.wait().requests == 0


def test_money(server: LoopbackServer) -> None:
    scaled = scale(
        chain_of(chat(server)), strategy=BestOfN(n=4), verifier=last, budget=Budget(usd=0.01), price={"m": (1.0, 10.0)}
    )
    usage = scaled.solve({"x": 1}).usage
    assert usage.usd == pytest.approx((usage.prompt_tokens * 1 + usage.completion_tokens * 10) / 1e6)


async def test_many_chains_over_one_ledger_never_overspend(server: LoopbackServer) -> None:
    account = Ledger(Budget(tokens=3000))
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=4), verifier=last, budget=account)
    found = await asyncio.gather(*(scaled.ainvoke({"x": i}) for i in range(64)), return_exceptions=True)
    assert account.spent.tokens <= 3000 and same(account, server)
    assert {isinstance(f, str) or type(f) for f in found} == {True, BudgetExhausted}


def test_many_threads_over_one_ledger_never_overspend(server: LoopbackServer) -> None:
    account = Ledger(Budget(tokens=500))
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=4), verifier=last, budget=account)

    def one(i: int) -> str:
        try:
            return str(scaled.invoke({"x": i}))
        except BudgetExhausted:
            return "none"

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(16)))
    assert account.spent.tokens <= 500 and "none" in found and same(account, server)


class Judge:
    """A verifier whose own model is priced: the engine reserves for it, beside the chain's metered calls."""

    name = "judge"

    def __init__(self, server: LoopbackServer) -> None:
        self._model = OpenAICompatibleModel("judge", base_url=server.base_url, max_tokens=16)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._model.bound(Problem("Rate it. " * 4))

    async def score(self, run: Run, candidate: Candidate) -> Score:
        reply = await run.generate(self._model, Problem("Rate it."))
        return Score(value=last(reply.generations[0].text))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(("calls", "least"), [(2, 1), (5, 2), (16, 8)])
def test_priced_verifiers_beside_metered_chains(server: LoopbackServer, how: str, calls: int, least: int) -> None:
    account = Ledger(Budget(calls=calls))
    judge = Judge(server)
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=8), verifier=judge, budget=account)

    async def run() -> Any:
        try:
            return await asyncio.wait_for(scaled.asolve({"x": 1}), 60)
        finally:
            await judge._model.aclose()

    result = scaled.solve({"x": 1}) if how == "sync" else asyncio.run(run())
    assert len(result.candidates) >= least and account.spent.calls <= calls and account.open_holds == 0
    assert server.wait().choices == account.spent.calls


# what fails, and what is cancelled


@pytest.mark.parametrize(("code", "tokens"), [(400, False), (429, False), (500, True)])
def test_failed_calls_are_charged_by_what_they_may_have_taken(server: LoopbackServer, code: int, tokens: bool) -> None:
    server.configure(reply=reply, faults={0: Fault.status(code)}, indexing="arrival")
    account = Ledger()
    result = scale(chain_of(chat(server)), strategy=BestOfN(n=3), verifier=last, budget=account).solve({"x": 1})
    counts = server.wait()
    assert len(result.candidates) == 2 and account.usage.calls == 3
    assert (account.usage.tokens > counts.tokens) is tokens and account.open_holds == 0


async def test_cancelled_calls_cost_their_reserve(server: LoopbackServer) -> None:
    server.configure(reply=reply, latency=60.0, indexing="arrival")
    account = Ledger(Budget(tokens=100_000))
    task = asyncio.create_task(scale(chain_of(chat(server)), n=3, verifier=last, budget=account).ainvoke({"x": 1}))
    await asyncio.to_thread(server.wait, lambda counts: counts.active == 3, timeout=60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert account.open_holds == 0 and account.usage.calls == 3 and account.usage.completion_tokens == 3 * 16


def test_a_thread_left_behind_makes_no_further_call(server: LoopbackServer) -> None:
    first, gone, model = threading.Event(), threading.Event(), chat(server)
    said: list[str] = []

    def step(value: Any) -> str:
        first.set()
        gone.wait(60)
        try:
            return str(model.invoke("again").content)
        except Exception as error:
            said.append(type(error).__name__)
            raise

    account = Ledger(Budget(seconds=1))
    with pytest.raises(TimeoutError):
        scale(RunnableLambda(step), n=1, verifier=last, budget=account).invoke({"x": 1})
    gone.set()
    block_until(lambda: said)
    assert said == ["MeterClosed"] and server.wait().requests == 0


# caches


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("concurrency", [1, None])
def test_samples_are_distinct_and_replay(
    server: LoopbackServer, cache: InMemoryCache, how: str, concurrency: int | None
) -> None:
    account = Ledger(Budget(tokens=100_000))
    scaled = scale(
        chain_of(chat(server)), strategy=BestOfN(n=4), verifier=last, budget=account, concurrency=concurrency
    )
    runs = [scaled.solve({"x": 1}) if how == "sync" else asyncio.run(scaled.asolve({"x": 1})) for _ in range(2)]
    texts = [sorted(c.text for c in run.candidates) for run in runs]
    assert len(set(texts[0])) == 4 and texts[0] == texts[1], "four different samples, the same ones again"
    assert server.wait().choices == 4 and same(account, server), "cache hits cost nothing"
    assert len({json.dumps(r.body, sort_keys=True) for r in server.requests}) == 1, "the server hears nothing of it"
    assert runs[1].usage.calls == 0


def test_other_seeds_are_other_samples_and_other_prompts_too(server: LoopbackServer, cache: InMemoryCache) -> None:
    for seed, x in ((1, 1), (2, 1), (1, 2), (1, 1)):
        scale(chain_of(chat(server)), strategy=BestOfN(n=2), verifier=last, seed=seed).invoke({"x": x})
    assert server.wait().choices == 6


def test_nested_samples_are_distinct_and_replay(server: LoopbackServer, cache: InMemoryCache) -> None:
    inner = scale(chain_of(chat(server)), strategy=BestOfN(n=3), verifier=last)
    outer = scale(inner, strategy=BestOfN(n=3), verifier=last)
    outer.invoke({"x": 1})
    assert server.wait().choices == 9
    outer.invoke({"x": 1})
    assert server.wait().choices == 9


def test_outside_of_a_search_the_cache_is_as_it_was(server: LoopbackServer, cache: InMemoryCache) -> None:
    model = chat(server)
    model.invoke("hello")
    scale(chain_of(model), n=2, verifier=last).invoke({"x": 1})
    assert get_llm_cache() is cache and model.invoke("hello").content
    assert server.wait().choices == 3, "what was cached before is still found"
    get_llm_cache().clear()
    assert not cache._cache


def test_a_models_own_cache(server: LoopbackServer) -> None:
    model = chat(server, cache=SampleCache(InMemoryCache()))
    scaled = scale(chain_of(model), strategy=SelfConsistency(n=3))
    assert len({c.text for c in scaled.solve({"x": 1}).candidates}) == 3
    scaled.invoke({"x": 1})
    assert server.wait().choices == 3


# any provider


def test_a_model_without_usage_or_limit_is_charged_by_its_text() -> None:
    account = Ledger()
    model = GenericFakeChatModel(messages=iter([AIMessage("four"), AIMessage("five")]))
    scale(model, strategy=SelfConsistency(n=2), budget=account).invoke("2 + 2?")
    assert account.usage.calls == 2 and account.usage.completion_tokens >= 2 and not account.usage.exact


def test_usage_in_another_providers_words() -> None:
    usage = {"input_tokens": 30, "output_tokens": 2, "total_tokens": 32}
    model = GenericFakeChatModel(messages=iter([AIMessage("four", usage_metadata=usage)] * 2))
    account = Ledger()
    scale(model, strategy=SelfConsistency(n=2), budget=account).invoke("2 + 2?")
    assert (account.usage.prompt_tokens, account.usage.completion_tokens, account.usage.exact) == (60, 4, True)


def test_other_handlers_do_not_see_calls_that_were_refused(server: LoopbackServer) -> None:
    class Watch(BaseCallbackHandler):
        started = ended = 0

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.started += 1

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            self.ended += 1

    watch = Watch()
    scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=6), verifier=last, budget=Budget(calls=4))
    scaled.invoke({"x": 1}, {"callbacks": [watch]})
    assert watch.started == watch.ended == 4


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_verifier_that_wraps_the_budgets_refusal_is_out_of_budget(server: LoopbackServer, how: str) -> None:
    model = chat(server)

    def judge(asked: Any) -> float:
        try:
            model.invoke("judge")
        except Exception as error:
            raise ValueError("the judge broke") from error
        return 1.0

    async def ajudge(asked: Any) -> float:
        try:
            await model.ainvoke("judge")
        except Exception as error:
            raise ValueError("the judge broke") from error
        return 1.0

    def scaled(calls: int) -> Any:
        verifier = RunnableLambda(judge, afunc=ajudge)
        return scale(chain_of(model), strategy=BestOfN(n=3), verifier=verifier, budget=Budget(calls=calls))

    with asyncio.Runner() as runner:  # one loop: ChatOpenAI's shared client belongs to it

        def solve(calls: int) -> Any:
            made = scaled(calls)
            return made.solve({"x": "?"}) if how == "sync" else runner.run(made.asolve({"x": "?"}))

        with pytest.raises(BudgetExhausted):
            solve(1)
        assert solve(5).stopped == "budget" and server.wait().choices == 6


def test_no_error_is_its_own_cause(server: LoopbackServer) -> None:
    judge = RunnableLambda(lambda asked: "no number")
    inner = ScaledChatModel(chat(server), strategy=BestOfN(n=2), verifier=judge)
    with pytest.raises(AllCandidatesFailed) as caught:
        scale(inner, strategy=BestOfN(n=2), verifier=lambda output: 1.0, budget=Budget(calls=20)).invoke("q")
    error: BaseException | None = caught.value
    seen: list[int] = []
    while error is not None:
        assert id(error) not in seen
        seen.append(id(error))
        error = error.__cause__


@pytest.mark.parametrize(
    ("code", "said"), [(404, r"404.*; check the model's name and base_url"), (401, r"401.*; check api_key")]
)
def test_a_servers_refusal_names_the_address_and_the_mend(server: LoopbackServer, code: int, said: str) -> None:
    server.configure(faults=Fault.every(1, Fault.status(code)))
    with pytest.raises(openai.APIStatusError) as caught:
        scale(chat(server), n=2).invoke("q")
    (note,) = caught.value.__notes__
    assert re.search(said, note) and f"at {server.base_url.rstrip('/')}/chat/completions;" in note


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = ChatOpenAI(model="m", base_url=f"http://user:secret@127.0.0.1:{port}/v1", api_key="-", max_retries=0)
    said = rf"ConnectError.*refused.*, at http://127\.0\.0\.1:{port}/v1/chat/completions; is the server running"
    with pytest.raises(openai.APIConnectionError) as caught:
        scale(model, n=2).invoke("q")
    (note,) = caught.value.__notes__
    assert re.search(said, note) and "secret" not in note + str(caught.value)
