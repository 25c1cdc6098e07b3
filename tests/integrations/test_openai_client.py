"""`scale` over real OpenAI clients and a real server: the same types back, nothing else changed, tokens counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

pytest.importorskip("aiohttp")

from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, AzureOpenAI, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from tts_plugins_openai import result_of, scale

from tts_plugins import BestOfN, Budget, Ledger, Revision, SelfConsistency, solve_sync
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.testing.loopback import Fault, LoopbackServer, Reply

ASK: list[Any] = [{"role": "user", "content": "How long can it get?"}]
ASKED: dict[str, Any] = {"model": "small", "messages": ASK}
OPEN: list[OpenAI] = []


class Sized(BaseModel):
    words: int


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=["a", "a b", "a b c", "a b c d"], indexing="arrival") as running:
        yield running
    while OPEN:
        OPEN.pop().close()


def sync_client(server: LoopbackServer, **options: Any) -> OpenAI:
    OPEN.append(OpenAI(base_url=server.base_url, api_key="-", **options))
    return OPEN[-1]


def async_client(server: LoopbackServer, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key="-", **options)


def length(message: Any) -> float:
    return len(message.content.split()) / 10


def longest(client: Any, n: int = 4, **settings: Any) -> Any:
    return scale(client, strategy=BestOfN(n=n), verifier=settings.pop("verifier", length), **settings)


# the same types back


def test_create_gives_the_best_message_with_the_usage_of_all(server: LoopbackServer) -> None:
    completion = longest(sync_client(server)).chat.completions.create(**ASKED)
    assert type(completion) is ChatCompletion and completion.id.startswith("loopback")
    assert completion.choices[0].message.content == "a b c d" and completion.choices[0].index == 0
    assert completion.usage is not None and completion.usage.total_tokens == server.counts.tokens
    result = result_of(completion)
    assert result.score == 0.4 and len(result.candidates) == 4 and result.usage.exact
    assert "_tts" not in completion.model_dump_json()


async def test_the_asynchronous_client_runs_on_the_callers_loop(server: LoopbackServer) -> None:
    threads: set[int] = set()

    async def verify(message: Any) -> float:
        threads.add(threading.get_ident())
        return length(message)

    async with longest(async_client(server), verifier=verify) as client:
        completion = await client.chat.completions.create(**ASKED)
    assert completion.choices[0].message.content == "a b c d" and threads == {threading.get_ident()}
    assert server.counts.requests == 1 and server.counts.choices == 4


def test_n_choices_are_the_best_distinct_ones(server: LoopbackServer) -> None:
    server.configure(reply=["a", "a b", "a b", "a b c"])
    client = longest(sync_client(server))
    three = client.chat.completions.create(**ASKED, n=3)
    assert [(c.index, c.message.content) for c in three.choices] == [(0, "a b c"), (1, "a b"), (2, "a")]
    four = client.chat.completions.create(**ASKED, n=4)
    assert [c.message.content for c in four.choices] == ["a b c", "a b", "a", "a b"], "repeats come last"
    with pytest.raises(ConfigurationError, match="n=5 choices are asked of a search over 4 candidates"):
        client.chat.completions.create(**ASKED, n=5)


def test_votes_where_there_is_no_verifier(server: LoopbackServer) -> None:
    server.configure(reply=["The answer is 5.", "It is 4. The answer is 4.", "The answer is 4."])
    client = scale(sync_client(server), strategy=SelfConsistency(n=3))
    completion = client.chat.completions.create(**ASKED, n=3)
    assert [c.message.content for c in completion.choices][2] == "The answer is 5."
    counted = scale(sync_client(server), strategy=SelfConsistency(n=3), answer=lambda m: str("It" in m.content))
    assert counted.chat.completions.create(**ASKED).choices[0].message.content == "The answer is 5."


def test_tool_calls_are_voted_on_by_name_and_arguments(server: LoopbackServer) -> None:
    def call(city: str) -> Reply:
        return Reply(None, finish_reason="tool_calls", tool_calls=[{"name": "weather", "arguments": {"city": city}}])

    server.configure(reply=[call("Rome"), call("Paris"), call("Paris")])
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    client = scale(sync_client(server), strategy=SelfConsistency(n=3))
    completion = client.chat.completions.create(**ASKED, tools=tools, tool_choice="auto")
    assert completion.choices[0].finish_reason == "tool_calls"
    (made,) = completion.choices[0].message.tool_calls or ()
    assert json.loads(made.function.arguments) == {"city": "Paris"}  # type: ignore[union-attr]
    assert server.requests[0].body["tools"] == tools and server.requests[0].body["tool_choice"] == "auto"
    # The conversation goes on with the message object itself.
    more = [*ASK, completion.choices[0].message, {"role": "tool", "tool_call_id": made.id, "content": "19"}]
    client.chat.completions.create(model="small", messages=more, tools=tools)
    assert server.requests[-1].body["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"


def test_response_formats_are_sent_and_voted_on_as_json(server: LoopbackServer) -> None:
    server.configure(reply=['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', '{"a": 3}'])
    client = scale(sync_client(server), strategy=SelfConsistency(n=3))
    completion = client.chat.completions.create(**ASKED, response_format={"type": "json_object"}, n=3)
    assert json.loads(completion.choices[2].message.content or "") == {"a": 3}
    assert server.requests[0].body["response_format"] == {"type": "json_object"}


# streams


def test_a_stream_is_the_winner_in_the_clients_own_chunks(server: LoopbackServer) -> None:
    client = longest(sync_client(server))
    with client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}) as stream:
        assert isinstance(stream, Stream)
        chunks = list(stream)
    assert all(type(chunk) is ChatCompletionChunk for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-2]] == ["a ", "b ", "c ", "d"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == server.counts.tokens
    assert result_of(stream).usage.tokens == server.counts.tokens
    assert "stream" not in server.requests[0].body and "stream_options" not in server.requests[0].body


async def test_an_asynchronous_stream(server: LoopbackServer) -> None:
    client = longest(async_client(server))
    stream = await client.chat.completions.create(**ASKED, stream=True, n=2)
    assert isinstance(stream, AsyncStream)
    said: dict[int, str] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
        assert chunk.usage is None
    assert said == {0: "a b c d", 1: "a b c"}
    await stream.close()
    await client.close()


def test_tool_calls_reasoning_and_logprobs_are_streamed_too(server: LoopbackServer) -> None:
    made = [{"name": "f", "arguments": {"x": 1}}]
    server.configure(reply=[Reply("so it is", tool_calls=made, reasoning="hm", logprobs=[-0.1, -0.2, -0.3])])
    client = scale(sync_client(server), n=1)
    chunks = list(client.chat.completions.create(**ASKED, stream=True, logprobs=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(d.content or "" for d in deltas) == "so it is"
    assert [d.reasoning_content for d in deltas if hasattr(d, "reasoning_content")] == ["hm"]
    assert [d.tool_calls[0].function.name for d in deltas if d.tool_calls] == ["f"]  # type: ignore[union-attr]
    reported = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token.logprob for each in reported for token in each.content or ()] == [-0.1, -0.2, -0.3]


# one call's settings


def test_settings_of_one_call_are_not_sent(server: LoopbackServer) -> None:
    client = longest(sync_client(server))
    two = client.chat.completions.create(**ASKED, extra_body={"tts": {"n": 2, "budget": {"calls": 9}}, "top_k": 5})
    one = client.chat.completions.create(**ASKED, tts={"strategy": {"type": "best_of_n", "n": 1}, "verifier": length})
    assert [len(result_of(c).candidates) for c in (two, one)] == [2, 1]
    assert server.requests[0].body["top_k"] == 5 and not any("tts" in r.body for r in server.requests)
    with pytest.raises(ConfigurationError, match="'m' is not a setting; use one of abstain_below, answer, budget"):
        client.chat.completions.create(**ASKED, tts={"m": 2})
    with pytest.raises(ConfigurationError, match="budget 'token' is not known"):
        client.chat.completions.create(**ASKED, tts={"budget": {"token": 2}})
    with pytest.raises(ConfigurationError, match="tts=4 must be a dict"):
        client.chat.completions.create(**ASKED, tts=4)


def test_one_seed_sends_the_same_requests(server: LoopbackServer) -> None:
    client = longest(sync_client(server), seed=7)
    for seed in ({}, {}, {"seed": 7}, {"seed": 8}):
        client.chat.completions.create(**ASKED, **seed)
    first, again, same, other = (request.body["seed"] for request in server.requests)
    assert first == again == same != other


def test_a_profile_gives_what_is_not_set(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_PLUGINS_PROFILES__CAREFUL__STRATEGY", '{"type": "self_consistency", "n": 3}')
    monkeypatch.setenv("TTS_PLUGINS_PROFILES__CAREFUL__BUDGET__CALLS", "2")
    completion = scale(sync_client(server), profile="careful").chat.completions.create(**ASKED)
    assert len(result_of(completion).candidates) == 2 and result_of(completion).stopped == "budget"
    with pytest.raises(ConfigurationError, match="profile='carefull' is not known"):
        scale(sync_client(server), profile="carefull")


# what is not ours


def test_everything_else_passes_through(server: LoopbackServer) -> None:
    bare = sync_client(server, max_retries=5)
    client = longest(bare)
    assert isinstance(client, OpenAI) and client.max_retries == 5 and client.base_url == bare.base_url
    assert client.models.list().data[0].id == "loopback"
    assert len(client.embeddings.create(model="e", input="x").data) == 1
    assert client.with_raw_response.models.list().parse().data[0].id == "loopback"
    assert client.beta.assistants is bare.beta.assistants
    assert bare.chat.completions.create(**ASKED).choices[0].message.content == "a", "it is not changed"


@pytest.mark.parametrize("way", ["with_raw_response", "with_streaming_response"])
def test_no_search_is_lost_unseen(server: LoopbackServer, way: str) -> None:
    for client in (longest(sync_client(server)), longest(async_client(server))):
        ways = (
            getattr(client, way).chat.completions, getattr(client.chat, way).completions,
            getattr(client.chat.completions, way), getattr(client.beta.chat.completions, way),
        )  # fmt: skip
        for completions in ways:
            for method in ("create", "parse"):
                with pytest.warns(UserWarning, match=rf"{way}.{method} goes to the client without a search"):
                    getattr(completions, method)
        with pytest.warns(UserWarning, match="completions.stream goes to the client without a search"):
            assert client.chat.completions.stream is not None
    with pytest.warns(UserWarning, match="count in no budget"):
        raw = getattr(longest(sync_client(server)).chat.completions, way).create(**ASKED)
    with raw if way == "with_streaming_response" else contextlib.nullcontext(raw) as response:
        assert response.parse().choices[0].message.content == "a", "the client's own, untouched"
    assert server.counts.requests == 1


async def test_beta_is_searched_too(server: LoopbackServer) -> None:
    assert longest(sync_client(server)).beta.chat.completions.create(**ASKED).choices[0].message.content == "a b c d"
    server.configure(reply=['{"words": 1}', '{"words": 3}', '{"words": 2}'])
    async with scale(async_client(server), n=3, verifier=lambda message: message.parsed.words / 10) as client:
        completion = await client.beta.chat.completions.parse(**ASKED, response_format=Sized)  # type: ignore[attr-defined]
    assert completion.choices[0].message.parsed == Sized(words=3)


def test_with_options_stays_scaled(server: LoopbackServer) -> None:
    client = longest(sync_client(server)).with_options(timeout=5.0, default_headers={"x-team": "blue"})
    assert client.chat.completions.create(**ASKED).choices[0].message.content == "a b c d"
    assert server.requests[0].headers["x-team"] == "blue" and client.timeout == 5.0


def test_what_cannot_be_searched_is_the_clients_own(server: LoopbackServer) -> None:
    client = longest(sync_client(server))
    client.chat.completions.create(**ASKED, modalities=["text", "audio"], tts={"n": 2})
    assert server.counts.choices == 1 and "tts" not in server.requests[0].body
    with pytest.raises(TypeError, match="Missing required arguments"):
        client.chat.completions.create(model="small")


def test_azure_clients(server: LoopbackServer) -> None:
    def route(request: Any) -> None:  # the server here has no deployments; the client's own connections are used
        assert "/deployments/small/" in request.url.path
        request.url = request.url.copy_with(path="/v1/chat/completions")

    async def aroute(request: Any) -> None:
        route(request)

    settings: dict[str, Any] = {"base_url": server.base_url, "api_key": "key", "api_version": "2026-01-01"}
    with AzureOpenAI(**settings, http_client=openai.DefaultHttpxClient(event_hooks={"request": [route]})) as azure:
        assert longest(azure).chat.completions.create(**ASKED).choices[0].message.content == "a b c d"
    assert server.requests[0].headers["api-key"] == "key"

    async def ask() -> Any:
        hooked = openai.DefaultAsyncHttpxClient(event_hooks={"request": [aroute]})
        async with AsyncAzureOpenAI(**settings, http_client=hooked) as one:
            return await longest(one).chat.completions.create(**ASKED)

    assert asyncio.run(ask()).choices[0].message.content == "a b c d"


def test_arguments_reach_the_server_as_they_are(server: LoopbackServer) -> None:
    client = longest(sync_client(server))
    client.chat.completions.create(
        **ASKED, temperature=0.9, top_p=0.5, max_completion_tokens=7, stop=["\n"], user="me",
        logit_bias=getattr(openai, "omit", openai.NOT_GIVEN),
        extra_headers={"x-trace": "1"}, extra_query={"q": "2"}, timeout=9.0,
    )  # fmt: skip
    body = {key: value for key, value in server.requests[0].body.items() if key != "seed"}
    assert body == {
        **ASKED, "n": 4, "temperature": 0.9, "top_p": 0.5, "max_completion_tokens": 7, "stop": ["\n"], "user": "me",
    }  # fmt: skip
    assert server.requests[0].headers["x-trace"] == "1"


# loops and threads


async def test_the_synchronous_client_inside_a_running_loop(server: LoopbackServer) -> None:
    assert longest(sync_client(server)).chat.completions.create(**ASKED).choices[0].message.content == "a b c d"


def test_eight_threads_get_eight_samples_each(server: LoopbackServer) -> None:
    client = longest(sync_client(server), n=8)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: client.chat.completions.create(**ASKED), range(8)))
    assert [len(result_of(c).candidates) for c in made] == [8] * 8 and server.counts.choices == 64
    assert sum(c.usage.total_tokens for c in made) == server.counts.tokens


def test_a_server_that_ignores_n_is_asked_concurrently(server: LoopbackServer) -> None:
    server.configure(honours_n=False, latency=1.5)
    completion = longest(sync_client(server), n=8).chat.completions.create(**ASKED)
    assert len(result_of(completion).candidates) == 8 and server.counts.requests == 8 and server.counts.peak >= 6
    assert completion.usage is not None and completion.usage.total_tokens == server.counts.tokens


async def test_one_asynchronous_client_on_two_loops(server: LoopbackServer) -> None:
    client = longest(async_client(server))

    async def ask() -> str:
        return (await client.chat.completions.create(**ASKED)).choices[0].message.content

    assert await ask() == "a b c d"
    assert await asyncio.to_thread(lambda: asyncio.run(ask())) == "a b c d"
    await client.close()


# money and failures


@pytest.mark.parametrize("stream", [False, True])
def test_the_ledger_has_exactly_the_servers_tokens(server: LoopbackServer, stream: bool) -> None:
    ledger = Ledger(Budget(calls=100, tokens=100_000))
    judge = scale(sync_client(server), n=1)  # a verifier may ask models too, and that is on the account

    def judged(message: Any) -> float:
        return length(judge.chat.completions.create(**ASKED, max_tokens=9).choices[0].message)

    # Eight texts have more tokens than one can have: the server is seen to count them all.
    client = scale(sync_client(server), strategy=BestOfN(n=8), verifier=judged, budget=ledger)
    for _ in range(3):
        answer = client.chat.completions.create(**ASKED, max_tokens=50, stream=stream)
        assert not stream or list(answer)
        assert result_of(answer).usage.by_role["verifier"].calls == 8
    assert ledger.usage.tokens == server.counts.tokens and ledger.usage.calls == 48 and ledger.usage.exact


def test_a_budget_stops_and_is_never_overspent(server: LoopbackServer) -> None:
    client = longest(sync_client(server), n=8, budget=Budget(calls=3))
    completion = client.chat.completions.create(**ASKED)
    assert result_of(completion).stopped == "budget" and server.counts.choices == 3
    ledger = Ledger(Budget(calls=3))
    shared = longest(sync_client(server), budget=ledger, on_exhausted="raise")
    with pytest.raises(BudgetExhausted):
        shared.chat.completions.create(**ASKED)
    assert ledger.usage.calls <= 3


def test_limits_that_cannot_hold_are_errors(server: LoopbackServer) -> None:
    with pytest.raises(UnboundedCallError, match=r"small: neither max_tokens .* pass max_tokens= to create"):
        longest(sync_client(server), budget=Budget(tokens=500)).chat.completions.create(**ASKED)
    with pytest.raises(UnknownPriceError, match="give price="):
        longest(sync_client(server), budget=Budget(usd=1)).chat.completions.create(**ASKED, max_tokens=5)
    priced = longest(sync_client(server), budget=Budget(usd=1), price={"small": (1.0, 2.0)})
    usage = result_of(priced.chat.completions.create(**ASKED, max_tokens=5)).usage
    assert usage.usd == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)


def test_fields_of_a_call_do_not_go_past_what_is_reserved(server: LoopbackServer) -> None:
    client = longest(sync_client(server), budget=Budget(tokens=1000))
    for more in ({"extra_body": {"max_tokens": 500}}, {"extra_body": {"n": 4}}):
        with pytest.raises(ConfigurationError, match="reserved"):
            client.chat.completions.create(**ASKED, max_tokens=10, **more)
    assert server.counts.requests == 0
    assert client.chat.completions.create(**ASKED, max_completion_tokens=10, extra_body={"top_k": 4}).choices


def test_samples_at_temperature_0_are_an_error(server: LoopbackServer) -> None:
    client = longest(sync_client(server))
    with pytest.raises(ConfigurationError, match=r"4 samples at temperature=0 .* set temperature to about 0.8"):
        client.chat.completions.create(**ASKED, temperature=0)
    assert client.chat.completions.create(**ASKED, temperature=0, tts={"n": 1}).choices and server.counts.choices == 1


def test_the_clients_retries_are_made_once_and_counted(server: LoopbackServer) -> None:
    server.configure(faults=[Fault.status(503), None])
    result = result_of(longest(sync_client(server, max_retries=1)).chat.completions.create(**ASKED))
    assert len(result.candidates) == 4 and server.counts.requests == result.usage.requests == 2
    server.reset()
    server.configure(faults=Fault.status(503))
    with pytest.raises(openai.InternalServerError) as failed:
        longest(sync_client(server, max_retries=0)).chat.completions.create(**ASKED)
    assert server.counts.requests == 1 and failed.value.status_code == 503
    assert isinstance(failed.value.__cause__, AllCandidatesFailed)


def test_a_timeout_of_any_form_holds(server: LoopbackServer) -> None:
    server.configure(latency=60.0)
    began = time.monotonic()
    for timeout in (openai.Timeout(60.0, read=0.2), 0.2):
        client = longest(sync_client(server, timeout=timeout, max_retries=0))
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**ASKED)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupts_of_langgraph_pass_through(server: LoopbackServer, how: str) -> None:
    pytest.importorskip("langgraph")
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Command, interrupt

    def approved(message: Any) -> float:
        return float(interrupt(f"how good is {message.content!r}?"))

    client, theirs = scale(sync_client(server), n=1, verifier=approved), async_client(server)
    scaled = scale(theirs, n=1, verifier=approved)

    def ask(state: Any) -> Any:
        return {"messages": [("ai", client.chat.completions.create(**ASKED).choices[0].message.content)]}

    async def aask(state: Any) -> Any:
        return {"messages": [("ai", (await scaled.chat.completions.create(**ASKED)).choices[0].message.content)]}

    graph = StateGraph(MessagesState).add_node("ask", ask if how == "sync" else aask)
    app, config = graph.add_edge(START, "ask").compile(checkpointer=InMemorySaver()), {"configurable": {"thread_id": 1}}

    async def run() -> tuple[Any, Any]:
        first = await app.ainvoke({"messages": []}, config)
        last = await app.ainvoke(Command(resume=1.0), config)
        await theirs.close()
        return first, last

    if how == "sync":
        first, last = app.invoke({"messages": []}, config), app.invoke(Command(resume=1.0), config)
    else:
        first, last = asyncio.run(run())
    assert first["__interrupt__"][0].value == "how good is 'a'?" and last["messages"][-1].content == "a b"


def test_an_output_that_the_verifier_cannot_read_is_shown_with_what_to_change(server: LoopbackServer) -> None:
    with pytest.raises(AttributeError, match="no attribute 'text'") as caught:
        longest(sync_client(server), verifier=lambda message: message.text == "a").chat.completions.create(**ASKED)
    assert re.search("the .* is a ChatCompletionMessage, .*: read that", caught.value.__notes__[0])


def test_what_is_no_client_or_setting(server: LoopbackServer) -> None:
    with pytest.raises(ConfigurationError, match="is not an OpenAI client; pass OpenAI"):
        scale("gpt-4")  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="verifier=3 is not a verifier"):
        scale(sync_client(server), verifier=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"verifier <lambda>\(\): it must take \(problem, candidate\), or"):
        scale(sync_client(server), verifier=lambda: 1.0)
    with pytest.raises(ConfigurationError, match="strategy=<class"):
        scale(sync_client(server), strategy=BestOfN)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="did not come from a search"):
        result_of(sync_client(server).chat.completions.create(**ASKED))


def test_inside_another_solve_its_account_pays(server: LoopbackServer) -> None:
    from tts_plugins.models import CallableModel

    client = longest(sync_client(server))

    def outer(content: str) -> str:
        return str(client.chat.completions.create(**ASKED).choices[0].message.content)

    result = solve_sync("?", model=CallableModel(outer), strategy=SelfConsistency(n=2), budget=Budget(calls=20))
    assert result.usage.calls == 8 == server.counts.choices and result.usage.tokens == server.counts.tokens


def test_the_verifier_sees_the_whole_request(server: LoopbackServer) -> None:
    seen: list[Any] = []

    def check(problem: Any, candidate: Any) -> float:
        seen.append(problem.metadata["request"])
        return length(candidate.output)

    longest(sync_client(server), verifier=check).chat.completions.create(**ASKED, top_p=0.5)
    assert seen[0]["top_p"] == 0.5 and seen[0]["messages"] == ASK


# what the client refuses before anything is sent


async def refusals(make: Any, server: LoopbackServer, **wrong: Any) -> tuple[Any, Ledger]:
    """What a scaled create raises, beside what the bare client does; and what was charged."""
    ledger, said = Ledger(Budget(calls=50)), []
    for client in (make(server), longest(make(server), budget=ledger)):
        with pytest.raises(TypeError) as caught:
            made = client.chat.completions.create(**ASKED, max_tokens=9, **wrong)
            if isinstance(make(server), AsyncOpenAI):
                await made
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]
    return said, ledger


@pytest.mark.parametrize("make", [sync_client, async_client])
@pytest.mark.parametrize("wrong", [{"temprature": 1}, {"response_format": Sized}, {"metadata": {"a": object()}}])
async def test_arguments_that_the_client_refuses_cost_nothing(server: LoopbackServer, make: Any, wrong: Any) -> None:
    _, ledger = await refusals(make, server, **wrong)
    assert ledger.spent == Ledger().spent and ledger.usage.requests == 0 and ledger.open_holds == 0
    assert server.counts.requests == 0


def test_chains_side_by_side_end_at_the_first_refusal(server: LoopbackServer) -> None:
    ledger = Ledger(Budget(calls=50))
    client = scale(sync_client(server), strategy=Revision(chains=4, rounds=2), verifier=length, budget=ledger)
    with pytest.raises(TypeError, match="temprature"):
        client.chat.completions.create(**ASKED, temprature=1)  # type: ignore[call-overload]
    assert ledger.spent == Ledger().spent and ledger.open_holds == 0 and server.counts.requests == 0


@pytest.mark.parametrize("n", ["2", -1, 0, True, 2.0])
async def test_n_is_checked_before_anything_is_sent(server: LoopbackServer, n: Any) -> None:
    said = rf"n={n!r} choices are asked for; n must be a whole number of at least 1"
    for stream in (False, True):
        with pytest.raises(ConfigurationError, match=said):
            longest(sync_client(server)).chat.completions.create(**ASKED, n=n, stream=stream)
    with pytest.raises(ConfigurationError, match=said):
        await longest(async_client(server)).chat.completions.parse(**ASKED, n=n, response_format=Sized)
    assert server.counts.requests == 0
    assert len(longest(sync_client(server)).chat.completions.create(**ASKED, n=None).choices) == 1


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", r"messages='hi' is of type str; messages is a list such as"),
        (ASK[0], r"messages=\{'role'.* is of type dict;"),
        (7, "messages=7 is of type int;"),
        (["hi"], r"messages\[0\]='hi' has no role;"),
        ([*ASK, {"content": "x"}], r"messages\[1\]=.* has no role"),
        ([], r"messages=\[\] is empty"),
    ],
)
def test_what_is_no_list_of_messages_is_said(server: LoopbackServer, messages: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        longest(sync_client(server)).chat.completions.create(model="small", messages=messages)
    assert server.counts.requests == 0


def test_settings_that_are_not_known_name_the_one_that_is_meant(server: LoopbackServer) -> None:
    wanted = r"scale: 'verfier' is not a setting; did you mean 'verifier'\? Or use one of abstain_below, answer"
    with pytest.raises(ConfigurationError, match=wanted):
        scale(sync_client(server), verfier=length)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"missing a required argument: 'client'; write scale\(client, n=8\)"):
        scale()  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"did you mean 'budget'\? Or use one of"):
        longest(sync_client(server)).chat.completions.create(**ASKED, tts={"bugdet": {"calls": 2}})


def test_what_is_scaled_shows_how(server: LoopbackServer) -> None:
    ledger = Ledger(Budget(calls=9))
    client = longest(sync_client(server), budget=ledger, seed=3)
    said = (
        f"scale(OpenAI(base_url='{server.base_url}'), strategy={BestOfN(n=4)!r}, verifier=length, budget={ledger!r}, "
        "seed=3)"
    )
    assert [repr(client), repr(client.chat), repr(client.chat.completions)] == [
        said, f"{said}.chat", f"{said}.chat.completions",
    ]  # fmt: skip
    assert f"strategy={SelfConsistency(n=8)!r})" in repr(scale(sync_client(server)))
