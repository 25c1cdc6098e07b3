"""`chat.completions.parse` of a scaled client: the client's own types, and a candidate lost for what does not parse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

pytest.importorskip("aiohttp")

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel, ValidationError, field_validator
from tts_plugins_openai import result_of, scale

from tests.waiting import until
from tts_plugins import BeamSearch, BestOfN, Budget, Revision, SelfConsistency
from tts_plugins.errors import ConfigurationError, DeadlineExceeded
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import MathGroups


class Label(BaseModel):
    category: str
    weight: int


ASKED: dict[str, Any] = {
    "model": "small", "messages": [{"role": "user", "content": "Sort it"}], "max_tokens": 16, "response_format": Label,
}  # fmt: skip


def label(category: str, weight: int) -> str:
    return json.dumps({"category": category, "weight": weight}, indent=1)  # words are the server's tokens


def weight(message: Any) -> float:
    return message.parsed.weight / 10


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    replies = [label("spam", 1), "no JSON", label("ham", 9), label("spam", 5)]
    with LoopbackServer(reply=replies, indexing="arrival") as running:
        yield running


@pytest.fixture
def client(server: LoopbackServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="-", max_retries=0) as made:
        yield made


def test_the_best_of_what_parses(server: LoopbackServer, client: OpenAI) -> None:
    scaled = scale(client, strategy=BestOfN(n=4), verifier=weight, budget=Budget(tokens=2_000))
    completion = scaled.chat.completions.parse(**ASKED)
    assert type(completion).__name__.startswith("ParsedChatCompletion") and isinstance(completion, ParsedChatCompletion)
    assert completion.choices[0].message.parsed == Label(category="ham", weight=9)
    result = result_of(completion)
    assert len(result.candidates) == 3 and "the answer is not a valid Label" in json.dumps(result.trace.to_dict())
    assert completion.usage is not None and completion.usage.total_tokens == server.counts.tokens == result.usage.tokens
    assert result.usage.exact and result.usage.calls == 4
    assert completion.model_dump()["choices"][0]["message"]["parsed"] == {"category": "ham", "weight": 9}


def test_the_request_is_the_clients_own(server: LoopbackServer, client: OpenAI) -> None:
    with pytest.raises(Exception, match="JSON"):
        client.chat.completions.parse(**{**ASKED, "n": 2})  # the client itself loses both to the second
    scale(client, n=4).chat.completions.parse(**ASKED)
    bare, ours = [r.body["response_format"] for r in server.requests]
    assert bare == ours and ours["json_schema"]["strict"] is True


async def test_asynchronously_with_a_vote_and_several_choices(server: LoopbackServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
        scaled = scale(client, strategy=SelfConsistency(n=4), answer=lambda message: message.parsed.category)
        completion = await scaled.chat.completions.parse(**ASKED, n=2)
        assert [choice.message.parsed.category for choice in completion.choices] == ["spam", "spam"]
        assert [choice.index for choice in completion.choices] == [0, 1]


def test_parsed_answers_are_compared_as_the_key_says(server: LoopbackServer, client: OpenAI) -> None:
    pytest.importorskip("math_verify")
    server.configure(reply=[label("x + 1", 1), label("ham", 9), label("1 + x", 5)])
    with contextlib.closing(MathGroups(lambda text: str(json.loads(text)["category"]))) as groups:
        completion = scale(client, strategy=SelfConsistency(n=3), answer=groups).chat.completions.parse(**ASKED)
    assert result_of(completion).agreement == pytest.approx(2 / 3)


def test_tools_are_parsed(server: LoopbackServer, client: OpenAI) -> None:
    called = Reply(None, tool_calls=[{"name": "Label", "arguments": {"category": "spam", "weight": 7}}])
    server.configure(reply=[called])
    tools = [openai.pydantic_function_tool(Label)]
    request = {key: value for key, value in ASKED.items() if key != "response_format"}
    completion = scale(client, n=3).chat.completions.parse(**request, tools=tools)
    (call,) = completion.choices[0].message.tool_calls
    assert call.function.parsed_arguments == Label(category="spam", weight=7)
    loose: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(ValueError, match="is not strict"):
        scale(client, n=3).chat.completions.parse(**request, tools=loose)


def test_revisions_are_parsed_too(server: LoopbackServer, client: OpenAI) -> None:
    server.configure(reply=[label("spam", 1), label("spam", 2)])
    scaled = scale(client, strategy=Revision(chains=1, rounds=2, select="best"), verifier=weight)
    assert scaled.chat.completions.parse(**ASKED).choices[0].message.parsed.weight == 2
    assert [m["role"] for m in server.requests[1].body["messages"]] == ["user", "assistant", "user"]
    voting = scale(
        client, strategy=Revision(chains=1, rounds=2, select="majority"), answer=lambda message: message.parsed.category
    )
    assert result_of(voting.chat.completions.parse(**ASKED)).answer == "spam"


def test_what_is_cut_or_does_not_parse_is_lost(server: LoopbackServer, client: OpenAI) -> None:
    server.configure(reply=["no JSON"])
    with pytest.raises(ValidationError, match="Label"):  # the bare client's own
        scale(client, n=2).chat.completions.parse(**ASKED)
    server.configure(reply=[label("a category that is rather long " * 9, 1)])
    with pytest.raises(openai.LengthFinishReasonError):
        scale(client, n=2).chat.completions.parse(**{**ASKED, "max_tokens": 3})


def test_what_is_not_searched_goes_through_and_what_cannot_be_is_refused(client: OpenAI) -> None:
    assert scale(client, n=2).chat.completions.parse(**ASKED).choices[0].message.parsed.category == "spam"
    with pytest.raises(ConfigurationError, match=r"parse reads whole messages, and BeamSearch.*use BestOfN"):
        scale(client, strategy=BeamSearch(n=4, beam_width=2)).chat.completions.parse(**ASKED)
    with pytest.raises(TypeError, match="model"):
        scale(client, n=2).chat.completions.parse(response_format=Label)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="Unsupported response_format type"):
        scale(client, n=2).chat.completions.parse(**{**ASKED, "response_format": int})


THREADS: set[str] = set()
FREE = threading.Event()


class Slow(Label):
    @field_validator("weight")
    @classmethod
    def looked_up(cls, value: int) -> int:
        THREADS.add(threading.current_thread().name)
        assert FREE.wait(60)
        return value


def test_slow_validators_hold_up_neither_the_deadline_nor_others(server: LoopbackServer, client: OpenAI) -> None:
    FREE.clear()
    scaled = scale(client, strategy=BestOfN(n=4), verifier=weight, budget=Budget(seconds=0.5))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        scaled.chat.completions.parse(**{**ASKED, "response_format": Slow})
    assert time.monotonic() - began < 20  # three of the four reach the validator
    FREE.set()
    assert all(name.startswith("tts-plugins-worker") for name in THREADS), THREADS


async def test_slow_validators_leave_the_callers_loop_free(server: LoopbackServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
        await client.models.list()
        FREE.clear()
        THREADS.clear()
        searching = asyncio.ensure_future(
            scale(client, n=4, verifier=weight).chat.completions.parse(**{**ASKED, "response_format": Slow})
        )
        await until(lambda: THREADS)
        assert not searching.done()
        FREE.set()  # which on a loop that was held nobody would come to do
        assert (await searching).choices[0].message.parsed == Slow.model_construct(category="ham", weight=9)
