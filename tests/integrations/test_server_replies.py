"""Replies of real servers, as bytes on a real socket: what they cost, which candidates they bring, and what is said."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("openai")

from tts_plugins import BestOfN, Budget, Ledger, Problem, Result, SelfConsistency, solve
from tts_plugins._internal.secrets import without_secrets
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    ConfigurationError,
    ConnectionFailed,
    MalformedResponse,
    QuotaExhausted,
    RequestRefused,
    ServerFailed,
    TTSError,
)
from tts_plugins.models import CallableModel, EmbeddingModel, OpenAICompatibleModel
from tts_plugins.testing import TableVerifier
from tts_plugins.testing.loopback import LoopbackServer, RawReply, RawRequest, RawServer, Reply, event_stream
from tts_plugins.verifiers import ProcessVerifierHTTP

pytestmark = pytest.mark.usefixtures("transport")
QUESTION = "How much is it?"
KEY = "sk-planted-0815-abcdef"
HEADER = "planted-header-4711"


def chat(*texts: str | None, usage: Any = None, **message: Any) -> dict[str, Any]:
    """A completion in OpenAI's form."""
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
        for i, text in enumerate(texts)
    ]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
            **({} if usage is None else {"usage": usage})}  # fmt: skip


def part(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def used(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def raw(body: Any, **how: Any) -> Callable[[RawRequest], RawReply]:
    return lambda request: RawReply(body, **how)


def model_of(server: RawServer, **settings: Any) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(
        "m", **{"base_url": server.base_url, "api_key": KEY, "max_tokens": 50, "temperature": 0.8, **settings}
    )


async def ended(
    reply: Callable[[RawRequest], RawReply], n: int = 1, ledger: Ledger | None = None, **settings: Any
) -> tuple[Any, RawServer, Ledger]:
    """The result of a solve, or its error; the server; the account."""
    ledger = ledger or Ledger(Budget(calls=100, tokens=1_000_000, seconds=20))
    verifier = settings.pop("verifier", None)
    attempts = settings.pop("attempts", 2)
    with RawServer(reply) as server:
        model = model_of(server, **settings)
        strategy = SelfConsistency(n=n) if verifier is None else BestOfN(n=n)
        try:
            end: Any = await solve(
                QUESTION, model=model, strategy=strategy, verifier=verifier, budget=ledger, attempts=attempts, seed=1
            )
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            end = error
        await model.aclose()
    assert ledger.open_holds == 0
    return end, server, ledger


# Money ----------------------------------------------------------------------------------------------------------------


async def test_the_address_in_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(raw(chat("4"))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        model = OpenAICompatibleModel("gpt-4o", max_tokens=50)
        monkeypatch.delenv("OPENAI_BASE_URL")  # what was found when it was made stays
        assert server.base_url in repr(model)
        result = await solve(QUESTION, model=model, strategy=SelfConsistency(n=1), budget=Budget(tokens=2000))
        assert server.bodies[0]["max_tokens"] == 50 and "max_completion_tokens" not in server.bodies[0]
        assert result.usage.usd is None, "what OpenAI asks is not this server's price"
        server.reply = raw("no", status=400)
        with pytest.raises(AllCandidatesFailed, match=server.base_url):
            await solve(QUESTION, model=model, strategy=SelfConsistency(n=1))
        await model.aclose()


@pytest.mark.parametrize("official", ["https://api.openai.com/v1", "https://eu.api.openai.com/v1/"])
def test_openai_s_own_server_is_known_however_it_is_named(official: str) -> None:
    assert "max_completion_tokens" in OpenAICompatibleModel("gpt-4o", base_url=official, max_tokens=5)._request


GENERATED: list[tuple[str, dict[str, Any]]] = [
    ("reasoning", {"reasoning": "word " * 50}),
    ("reasoning_content", {"reasoning_content": "word " * 50}),
    ("reasoning_text", {"reasoning_text": "word " * 50}),
    ("thinking", {"thinking": "word " * 50}),
    ("details", {"reasoning_details": [{"type": "reasoning.text", "text": "word " * 50}]}),
    ("blocks", {"thinking_blocks": [{"type": "thinking", "thinking": "word " * 50, "signature": "x" * 99}]}),
    ("parts", {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "word " * 50}]}]}),
    ("refusal", {"refusal": "word " * 50}),
    ("function_call", {"function_call": {"name": "f", "arguments": json.dumps({"q": "word " * 50})}}),
    ("tool_calls", {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "word " * 50}}]}),
    ("unknown", {"some_new_field": "word " * 50}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", [fields for _, fields in GENERATED], ids=[name for name, _ in GENERATED])
async def test_all_that_was_generated_is_charged(said: dict[str, Any], stream: bool) -> None:
    content = said.get("content", "4")
    body: Any = raw({**chat("4"), "choices": [{"index": 0, "finish_reason": "stop",
                                               "message": {"content": "4", **said}}]})  # fmt: skip
    if stream:
        body = lambda request: event_stream(part(said), part({"content": "4"}), part({}, "stop"))  # noqa: E731
    end, _, ledger = await ended(body, stream=stream, max_tokens=1000)
    assert isinstance(end, Result) and content, end
    assert ledger.spent.tokens - 140 >= 200 and not end.usage.exact, "at most a token a byte, and no fewer than 50"
    assert end.usage.completion_tokens >= 250


async def test_one_thought_under_two_names_is_charged_once() -> None:
    both = {"reasoning": "word " * 50, "reasoning_details": [{"type": "reasoning.text", "text": "word " * 50}]}
    end, _, _ = await ended(raw(chat("4", usage=used(10, 52), **both)), max_tokens=1000)
    assert end.usage.exact and end.usage.completion_tokens == 52 and end.best.reasoning == "word " * 50


async def test_a_budget_holds_where_thoughts_are_streamed_and_not_counted() -> None:
    thought = [part({"reasoning": "word "}) for _ in range(100)]
    stream = event_stream(*thought, part({"content": "4"}), part({}, "stop"))
    ledger = Ledger(Budget(tokens=2000))
    _, server, ledger = await ended(lambda r: stream, n=40, ledger=ledger, stream=True, max_tokens=100, batch=1)
    assert ledger.spent.tokens <= 2000 and 100 * len(server.requests) <= ledger.spent.tokens


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("times", [2, 3])
async def test_a_usage_that_is_sent_again_counts_once(n: int, times: int) -> None:
    texts = [part({"content": f"answer {i}"}, index=i) for i in range(n)]
    ends = [part({}, "stop", index=i) for i in range(n)]
    counts = [{"id": "x", "choices": [], "usage": used(10, 3 * n)}] * times
    end, _, _ = await ended(lambda r: event_stream(*texts, *ends, *counts), n=n, stream=True)
    assert isinstance(end, Result) and len(end.candidates) == n
    if n == 1:
        assert end.usage.exact and end.usage.completion_tokens == 3
    else:
        assert not end.usage.exact or end.usage.completion_tokens == 3 * n


async def test_usages_at_the_end_of_each_choice_are_exact_only_if_they_are_certainly_of_one_choice() -> None:
    def stream(counts: tuple[int, int], timed: bool, text: str = "word " * 30) -> Callable[[RawRequest], RawReply]:
        parts = [part({"content": text}, index=i) for i in range(2)]
        for i, count in enumerate(counts):  # as llama.cpp: a chunk of its own, and timings of one choice
            timings = {"timings": {"predicted_n": count}} if timed else {}
            parts += [part({}, "stop", index=i), {"id": "x", "choices": [], "usage": used(10, count), **timings}]
        return lambda request: event_stream(*parts)

    ends = [part({"content": "word " * 30}, index=i) for i in range(2)]
    ends += [part({}, "stop", index=i, usage=used(10, count)) for i, count in enumerate((40, 60))]
    end, _, _ = await ended(lambda request: event_stream(*ends), stream=True, n=2, batch=2, max_tokens=100)
    assert not end.usage.exact and 60 <= end.usage.completion_tokens <= 200, "60 in all, or 40 and 60"
    for counts, timed, exact in (((40, 60), False, False), ((60, 40), False, True), ((40, 60), True, True)):
        end, _, _ = await ended(stream(counts, timed), stream=True, n=2, batch=2, max_tokens=100)
        assert (end.usage.completion_tokens, end.usage.exact) == (100, exact), (counts, timed)
    end, _, _ = await ended(stream((40, 40), True), stream=True, n=2, batch=2, max_tokens=100)
    assert (end.usage.completion_tokens, end.usage.exact) == (80, True)


async def test_a_usage_that_grows_counts_once() -> None:
    texts = [part({"content": "a"}, index=i % 2, usage=used(10, i + 1)) for i in range(8)]
    ends = [part({}, "stop", index=i, usage=used(10, 8)) for i in range(2)]
    end, _, _ = await ended(lambda r: event_stream(*texts, *ends), n=2, stream=True)
    assert end.usage.prompt_tokens == 10 and end.usage.completion_tokens <= 12


# Keys -----------------------------------------------------------------------------------------------------------------

QUOTES: list[tuple[str, Any, int]] = [
    ("refusal", {"error": {"message": f"key {KEY} and {HEADER} are wrong"}}, 400),
    ("text", f"no such key: Bearer {KEY}, header {HEADER}", 401),
    ("list", [{"error": {"message": f"{KEY} {HEADER}", "status": "UNAUTHENTICATED"}}], 401),
    ("detail", {"detail": [{"loc": ["header"], "msg": f"{HEADER} {KEY}"}]}, 422),
    ("200", {"error": {"message": f"{KEY} {HEADER}", "code": 401}}, 200),
    ("500", f"<html>{KEY} {HEADER}</html>", 500),
    ("html", f"<html>{KEY} {HEADER}</html>", 200),
    ("broken", f'{{"key": "{KEY} {HEADER}"', 200),
    ("choice", {"choices": [{"index": 0, "finish_reason": "error", "error": {"message": f"{KEY} {HEADER}"}}]}, 200),
]


def reported(error: BaseException) -> str:
    """All that a report of the error can show: causes, variables of frames, its pickle."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames.stack = traceback.StackSummary.from_list([f for f in frames.stack if "/tests/" not in f.filename])
    report = "".join(frames.format())
    try:
        report += pickle.dumps(error).decode("latin-1")
    except TypeError:
        report += "no pickle"
    return report + repr(error) + str(vars(error))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "status"), [(b, s) for _, b, s in QUOTES], ids=[name for name, _, _ in QUOTES])
async def test_no_key_shows_whatever_quotes_it(
    body: Any, status: int, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(raw(body, status=status)) as server:
        model = model_of(server, headers={"X-Gateway": HEADER, "Cookie": f"session={HEADER}"}, stream=stream)
        with pytest.raises(Exception) as caught:
            await solve(QUESTION, model=model, strategy=SelfConsistency(n=2), attempts=2)
        error = caught.value
        report = reported(error) + repr(model) + caplog.text
        assert server.requests[0].headers["x-gateway"] == HEADER, "it is sent all the same"
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        await model.aclose()
    assert KEY not in report and HEADER not in report


async def test_no_trace_shows_a_key() -> None:
    def reply(request: RawRequest) -> RawReply:
        wrong = {"error": {"message": f"{KEY} and {HEADER}"}}
        return RawReply(wrong, status=500) if request.number == 0 else RawReply(chat("4", "5"))

    end, _, _ = await ended(reply, n=2, headers={"X-Gateway": HEADER}, attempts=3)
    assert isinstance(end, Result), end
    shown = json.dumps(end.trace.to_json(), default=str) if hasattr(end.trace, "to_json") else str(end.trace.to_dict())
    assert KEY not in shown and HEADER not in shown and "…" in shown


@pytest.mark.parametrize("key", ["sk-planted\n", "sk-planted\r\nX-Evil: 1", "sk-plänted", "sk\x00planted"])
@pytest.mark.parametrize("where", ["api_key", "header", "environment"])
async def test_a_key_that_no_header_can_hold_is_refused_unseen(
    key: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(raw(chat("4"))) as server, pytest.raises(ConfigurationError) as caught:
        given: dict[str, Any] = {"api_key": key} if where == "api_key" else {"headers": {"X-Key": key}}
        if where == "environment":
            given = {}
            if "\x00" in key:
                pytest.skip("the environment holds no zeros")
            monkeypatch.setenv("OPENAI_API_KEY", key)
        model = OpenAICompatibleModel("m", base_url=server.base_url, **given)
        await model.generate(Problem("q"), [None])
    assert "sk" not in str(caught.value) and server.requests == []


# What never left ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://ho st/v1", " http://host/v1", "http://host/v1\n",
     "http://host:99999/v1", "http://host:port/v1", "http://[::1/v1", ""],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"base_url=.* write it as http"):
        OpenAICompatibleModel("m", base_url=address)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    if address:
        with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
            OpenAICompatibleModel("m")


@pytest.mark.parametrize("headers", [{"X Y": "1"}, {"X-Y": "a\nb"}, {"": "1"}, {"X": "ü"}, {"X": 5}, {"X:": "1"}])
def test_headers_that_cannot_be_sent_are_refused_at_once(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="headers"):
        OpenAICompatibleModel("m", base_url="http://host/v1", headers=headers)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1", "http://[::1"])
async def test_a_proxy_that_cannot_be_used_costs_nothing(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if proxy.startswith("socks"):
        try:
            import socksio  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("SOCKS works here")
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    # An address on this machine would never be asked through a proxy.
    end, server, ledger = await ended(raw(chat("4")), n=8, attempts=8, base_url="http://model.invalid/v1")
    assert isinstance(end, ConfigurationError) and "PROXY" in str(end), end
    assert ledger.spent == (0, 0, 0) and server.requests == []


async def test_a_proxy_that_is_not_there_says_so_or_costs_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    end, _, ledger = await ended(raw(chat("4")), n=2, attempts=1, base_url="http://model.invalid/v1")
    assert isinstance(end.__cause__, ConnectionFailed) and ledger.spent.tokens == 0


async def test_tls_where_none_is_spoken_says_so() -> None:
    with RawServer(raw(chat("4"))) as server:
        model = model_of(server, base_url=server.base_url.replace("http:", "https:"))
        ledger = Ledger(Budget(tokens=10_000))
        with pytest.raises(ConfigurationError, match="does not speak TLS"):
            await solve(QUESTION, model=model, strategy=SelfConsistency(n=2), budget=ledger, attempts=1)
        assert ledger.spent.tokens == 0
        await model.aclose()


async def test_groq_s_usage_in_a_stream_is_read() -> None:
    chunks = part({"content": "4"}), part({}, "stop", x_groq={"id": "r", "usage": used(12, 5)})
    end, _, _ = await ended(lambda request: event_stream(*chunks), stream=True)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.exact) == (12, 5, True)


async def test_a_thought_without_an_answer_is_not_paid_for_twice() -> None:
    end, server, _ = await ended(raw(chat(None, usage=used(12, 9), reasoning_content="I think 4.")))
    assert isinstance(end, Result) and end.candidates[0].reasoning == "I think 4." and end.answer is None
    assert len(server.bodies) == 1 and (end.usage.tokens, end.usage.exact) == (21, True)


# Candidates -----------------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[str, Callable[[str], Any]]] = [
    ("openai", lambda f: {"error": {"message": f"Unsupported parameter: '{f}'", "param": f}}),
    ("param only", lambda f: {"error": {"message": None, "param": f, "code": "unsupported_parameter"}}),
    ("mapping", lambda f: {"error": {"message": {"text": f"unknown field {f}"}}}),
    ("string", lambda f: {"error": f"unknown field `{f}`"}),
    ("list", lambda f: [{"error": {"message": f"Unknown name '{f}'", "status": "INVALID_ARGUMENT"}}]),
    ("detail", lambda f: {"detail": [{"type": "extra_forbidden", "loc": ["body", f], "msg": "Extra inputs"}]}),
    ("detail text", lambda f: {"detail": f"{f} is not supported"}),
    ("vllm", lambda f: {"object": "error", "message": f"[{{'loc': ('body', '{f}'), 'msg': 'no'}}]", "code": 400}),
    ("text", lambda f: f"field {f} is not permitted"),
    ("litellm", lambda f: {"error": {"message": f"openai does not support parameters: ['{f}']", "code": "400"}}),
]


@pytest.mark.parametrize("name", ["seed", "temperature", "n", "stream_options"])
@pytest.mark.parametrize("form", [form for _, form in REFUSALS], ids=[name for name, _ in REFUSALS])
async def test_a_field_that_is_refused_in_any_form_is_left_out(name: str, form: Callable[[str], Any]) -> None:
    stream = name == "stream_options"

    def reply(request: RawRequest) -> RawReply:
        if name in request.body:
            return RawReply(form(name), status=422 if name == "seed" else 400)
        if stream:
            return event_stream(part({"content": "4"}), part({}, "stop"))
        return RawReply(chat(*["4"] * request.body.get("n", 1)))

    end, server, _ = await ended(reply, n=2, stream=stream, batch=1 if stream else 16)
    assert isinstance(end, Result) and len(end.candidates) == 2, end
    refused = [name in body for body in server.bodies]
    assert not refused[-1] and sum(refused) <= 2, "known from then on"


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "candidateCount must be 1"), (400, "only one candidate is supported"), (501, "not here"),
     (400, "streaming with multiple completions is not supported"), (422, "n must be 1"), (400, "`n` > 1"),
     (400, "Number of choices has to be one")],
)  # fmt: skip
async def test_several_choices_refused_in_any_words_are_asked_for_singly(status: int, words: str) -> None:
    def reply(request: RawRequest) -> RawReply:
        if request.body.get("n", 1) > 1:
            return RawReply({"error": {"message": words}}, status=status)
        return RawReply(chat("4"))

    end, server, _ = await ended(reply, n=4)
    assert isinstance(end, Result) and len(end.candidates) == 4, end
    assert [body.get("n", 1) for body in server.bodies].count(1) == 4 and len(server.bodies) <= 6


@pytest.mark.parametrize("words", ["n must be between 1 and 3", "n: at most 3 allowed", "up to 3 choices, n was {n}"])
async def test_as_many_choices_as_the_server_allows_are_asked_for(words: str) -> None:
    def reply(request: RawRequest) -> RawReply:
        n = request.body.get("n", 1)
        if n > 3:
            return RawReply({"error": {"message": words.format(n=n), "param": "n"}}, status=400)
        return RawReply(chat(*["4"] * n))

    end, server, _ = await ended(reply, n=12)
    assert isinstance(end, Result) and len(end.candidates) == 12
    assert max(body.get("n", 1) for body in server.bodies[-3:]) == 3, "and not one for ever"


@pytest.mark.parametrize(
    "words",
    ["Your prompt was blocked: '… what is the temperature in Rome, and the seed of n'",
     "content policy: what is the temperature in Rome, and the seed of n", "blocked"],
)  # fmt: skip
async def test_a_refusal_that_quotes_the_prompt_takes_no_field_away(words: str) -> None:
    with RawServer(raw({"error": {"message": words}}, status=400)) as server:
        model = model_of(server)
        prompt = "Tell me: what is the temperature in Rome, and the seed of n"
        with pytest.raises(AllCandidatesFailed):
            await solve(prompt, model=model, strategy=SelfConsistency(n=2), attempts=1, seed=1)
        server.reply = raw(chat("4", "4"))
        await solve("again", model=model, strategy=SelfConsistency(n=2), seed=1)
        assert {"temperature", "seed", "n"} <= set(server.bodies[-1])
        await model.aclose()


async def test_a_change_that_does_not_help_is_undone_and_made_once() -> None:
    def reply(request: RawRequest) -> RawReply:
        body = request.body
        limit = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        other = "max_completion_tokens" if limit == "max_tokens" else "max_tokens"
        return RawReply({"error": {"message": f"{limit} is refused, use {other}", "param": limit}}, status=400)

    with RawServer(reply) as server:
        model = model_of(server)
        with pytest.raises(RequestRefused):
            await model.generate(Problem(QUESTION), [1])
        assert len(server.requests) <= 3, "no ping-pong"
        server.reply = raw(chat("4"))
        await model.generate(Problem(QUESTION), [1])
        assert "max_tokens" in server.bodies[-1]
        await model.aclose()


# Streams of several ---------------------------------------------------------------------------------------------------


def glued(request: RawRequest) -> RawReply:
    """All choices are numbered 0, and come in turns."""
    n = request.body.get("n", 1)
    begin = [part({"role": "assistant", "content": ""}) for _ in range(n)]
    return event_stream(*begin, *[part({"content": f"{i}"}) for _ in range(3) for i in range(n)],
                        *[part({}, "stop") for _ in range(n)])  # fmt: skip


def one_after_the_other(request: RawRequest) -> RawReply:
    n = request.body.get("n", 1)
    return event_stream(*[p for i in range(n) for p in (part({"role": "assistant", "content": f"{i}"}),
                                                        part({"content": f"{i}"}), part({}, "stop"))])  # fmt: skip


def first_ends(request: RawRequest) -> RawReply:
    n = request.body.get("n", 1)
    return event_stream(*[part({"content": "12"}, index=i) for i in range(n)], part({}, "stop"))


def none_ends(request: RawRequest) -> RawReply:
    n = request.body.get("n", 1)
    return event_stream(*[part({"content": "12"}, index=i) for i in range(n)])


@pytest.mark.parametrize("reply", [glued, one_after_the_other, first_ends, none_ends])
async def test_a_stream_that_mixes_or_leaves_choices_is_asked_for_singly(reply: Callable[[RawRequest], Any]) -> None:
    end, server, ledger = await ended(reply, n=3, stream=True, attempts=3)
    assert isinstance(end, Result) and len(end.candidates) == 3, end
    assert all(c.text in ("12", "000", "00") for c in end.candidates), [c.text for c in end.candidates]
    assert [body.get("n", 1) for body in server.bodies].count(3) == 1
    assert ledger.spent.tokens >= 6, "what came is charged"


@pytest.mark.parametrize("ids", [True, False])
async def test_tool_calls_that_share_an_index_stay_apart(ids: bool) -> None:
    calls = [{"index": 0, **({"id": f"c{i}"} if ids else {}),
              "function": {"name": f"f{i}", "arguments": json.dumps({"x": i})}} for i in range(2)]  # fmt: skip
    end, _, _ = await ended(
        lambda r: event_stream(*[part({"tool_calls": [c]}) for c in calls], part({}, "tool_calls")), stream=True
    )
    made = end.best.output.tool_calls
    assert [(c.function.name, c.function.arguments) for c in made] == [("f0", '{"x": 0}'), ("f1", '{"x": 1}')]


async def test_a_server_that_does_not_stream_after_all_is_read() -> None:
    end, _, _ = await ended(raw(chat("4", usage=used(10, 2))), stream=True)
    assert isinstance(end, Result) and end.best.text == "4" and end.usage.tokens == 12


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
async def test_lines_end_in_any_way(end: str) -> None:
    chunks = (part({"content": "gr"}), ": a comment", part({"content": "ün"}), part({}, "stop"))
    got, _, _ = await ended(lambda r: event_stream(*chunks, end=end), stream=True)
    assert isinstance(got, Result) and got.best.text == "grün"


# Errors inside a 200 --------------------------------------------------------------------------------------------------


async def test_events_without_blank_lines_between_them_are_read() -> None:
    end, _, _ = await ended(
        lambda request: event_stream(part({"content": "4"}), part({}, "stop"), end="\n"), stream=True
    )
    assert isinstance(end, Result) and end.text == "4"


async def test_an_event_that_is_called_an_error_says_what_was_wrong() -> None:
    reply = event_stream(part({"content": "4"}), 'event: error\ndata: {"message": "boom"}', done=False)
    end, _, _ = await ended(lambda request: reply, stream=True)
    assert isinstance(end, AllCandidatesFailed) and "boom" in str(end)


async def test_parts_that_are_texts_are_read() -> None:
    end, _, _ = await ended(raw(chat(["The answer", {"type": "text", "text": " is 4."}], usage=used(12, 9))))  # type: ignore[arg-type]
    assert isinstance(end, Result) and end.text == "The answer is 4."


async def test_gemini_s_words_for_a_wrong_key_end_the_search() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}
    end, server, ledger = await ended(raw([{"error": error}], status=400), n=4)
    assert isinstance(end, AuthenticationFailed) and ledger.usage.tokens == 0 and len(server.bodies) <= 4


@pytest.mark.parametrize("path", ["", "/", "/openai/deployments/d"])
async def test_a_query_of_the_address_stands_behind_the_path(path: str) -> None:
    with RawServer(raw(chat("4"))) as server:
        model = OpenAICompatibleModel("m", base_url=f"{server.base_url}{path}?api-version=2024&key={KEY}", api_key="-")
        assert (await solve(QUESTION, model=model, strategy=SelfConsistency(n=1))).text == "4"
        assert server.requests[0].path == f"/v1{path.rstrip('/')}/chat/completions?api-version=2024&key={KEY}"
        server.reply = raw(f"what is {KEY}?", status=400)
        with pytest.raises(AllCandidatesFailed) as caught:
            await solve(QUESTION, model=model, strategy=SelfConsistency(n=1))
        assert KEY not in "".join(traceback.format_exception(caught.value))
        await model.aclose()


def test_the_address_of_a_request_is_no_base_url() -> None:
    with pytest.raises(ConfigurationError, match="leave out what follows /v1"):
        OpenAICompatibleModel("m", base_url="http://127.0.0.1:8000/v1/chat/completions", api_key="-")


async def test_a_choice_that_is_an_error_is_no_candidate() -> None:
    bad = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "upstream broke"},
           "message": {"role": "assistant", "content": "half an ans"}}  # fmt: skip
    good = chat("4", "4")["choices"][1]
    end, _, _ = await ended(raw({"choices": [bad, good]}), n=2, verifier=TableVerifier({"half an ans": 1.0, "4": 0.5}))
    assert isinstance(end, Result) and end.best.text == "4"
    end, _, _ = await ended(raw({"choices": [bad]}))
    assert isinstance(end.__cause__, ServerFailed) and "upstream broke" in str(end)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"error": {"code": 401, "message": "no"}}, AuthenticationFailed),
        (200, {"error": {"code": "401", "message": "no"}}, AuthenticationFailed),
        (200, {"error": {"type": "authentication_error", "message": "no"}}, AuthenticationFailed),
        (200, {"error": {"code": 402, "message": "no credit"}}, QuotaExhausted),
        (402, {"error": {"message": "no credit"}}, QuotaExhausted),
        (429, {"error": {"message": "over", "code": "insufficient_quota"}}, QuotaExhausted),
        (429, {"error": {"message": "over", "type": "insufficient_quota", "code": None}}, QuotaExhausted),
        (401, {"detail": "no"}, AuthenticationFailed),
    ],
)
async def test_what_no_other_candidate_can_escape_ends_the_search_at_once(
    status: int, body: Any, kind: type[Exception], stream: bool
) -> None:
    end, server, _ = await ended(raw(body, status=status), n=8, attempts=8, stream=stream, batch=1, concurrency=1)
    assert type(end) is kind and len(server.requests) <= 2, (end, len(server.requests))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 402, 429])
async def test_a_refused_key_or_used_up_account_ends_a_search_under_way_with_the_best_so_far(
    status: int, stream: bool
) -> None:
    def reply(request: RawRequest) -> RawReply:
        if request.number:
            return RawReply({"error": {"message": f"no, {KEY}", "code": FATAL[status]}}, status=status)
        return RawReply(chat("4", usage=used(10, 5)))

    end, server, ledger = await ended(reply, n=12, attempts=8, stream=stream, batch=1, concurrency=1)
    assert end.text == "4" and end.stopped == "error" and len(server.requests) <= 3
    named = "AuthenticationFailed" if status == 401 else "QuotaExhausted"
    assert len(end.warnings) == 1 and named in end.warnings[0] and KEY not in told_of(end)
    assert any(e["kind"] == "search_ended" and named in e["error"] for e in end.trace)
    assert 15 <= ledger.usage.tokens < 400 and ledger.usage.calls <= 3


FATAL = {401: "invalid_api_key", 402: "no_credit", 429: "insufficient_quota"}


def told_of(result: Result) -> str:
    return f"{result.warnings} {json.dumps(result.trace.to_dict(), default=str)} {result.trace.tree()}"


async def test_the_words_of_a_json_error_to_a_stream_are_kept() -> None:
    end, _, _ = await ended(raw({"error": {"message": "the model is loading", "code": 503}}), stream=True)
    assert isinstance(end.__cause__, ServerFailed) and "the model is loading" in str(end)


@pytest.mark.parametrize(
    "word", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "token_limit", "LENGTH",
             "model_context_window_exceeded", "FINISH_REASON_MAX_TOKENS", "max_new_tokens"]
)  # fmt: skip
async def test_a_cut_answer_is_marked_however_it_is_called(word: str) -> None:
    body = chat("half an")
    body["choices"][0]["finish_reason"] = word
    end, _, _ = await ended(raw(body))
    assert end.best.finish_reason == "length" and end.best.truncated


@pytest.mark.parametrize("logprobs", [
    {"content": [{"token": "4", "logprob": None}]}, {"content": None}, {"content": "x"}, "x", {"content": [None]},
    {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": None}]},
    {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": [{"token": "5", "logprob": None}]}]},
])  # fmt: skip
async def test_odd_log_probabilities_lose_no_candidate(logprobs: Any) -> None:
    body = chat("4")
    body["choices"][0]["logprobs"] = logprobs
    end, _, _ = await ended(raw(body), logprobs=True)
    assert isinstance(end, Result) and end.best.text == "4"


@pytest.mark.parametrize("arguments", [{"x": 1}, None, 3, [1, 2], "", "{"])
async def test_tool_arguments_of_any_kind_are_a_candidate(arguments: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    end, _, _ = await ended(raw(chat(None, tool_calls=[call])))
    assert isinstance(end, Result), end


async def test_a_wait_of_a_day_ends_the_call() -> None:
    reply = raw({"error": {"message": "tomorrow"}}, status=429, headers={"Retry-After": "86400"})
    end, server, _ = await ended(reply, attempts=8, ledger=Ledger(Budget(calls=100, tokens=100_000)))
    assert len(server.requests) == 1 and "86400" in str(end)


async def test_not_implemented_is_final() -> None:
    end, server, ledger = await ended(raw("no", status=501), attempts=8)
    assert isinstance(end.__cause__, ServerFailed) and len(server.requests) == 1 and ledger.spent.tokens == 0


@pytest.mark.parametrize(
    "words",
    ["This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (max_completion_tokens=9)",
     "the request exceeds the available context size, try increasing it", "prompt is too long: 9 tokens > 8 maximum"],
)  # fmt: skip
async def test_a_prompt_that_is_too_long_says_what_to_lower(words: str) -> None:
    end, server, _ = await ended(raw({"error": {"message": words}}, status=400))
    assert "lower max_tokens, or shorten the prompt" in str(end) and len(server.requests) == 1


# Redirects and size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_server_is_not_followed(status: int) -> None:
    with RawServer(raw(chat("stranger"))) as stranger:
        away = raw("", status=status, headers={"Location": f"{stranger.origin}/v1/chat/completions?token={KEY}"})
        end, _, _ = await ended(away, headers={"X-Gateway": HEADER}, attempts=3)
        assert stranger.requests == []
    assert isinstance(end, ConfigurationError) and stranger.origin in str(end) and KEY not in reported(end)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_on_the_same_server_is_followed(status: int) -> None:
    def reply(request: RawRequest) -> RawReply:
        if request.path == "/v1/chat/completions":
            return RawReply("", status=status, headers={"Location": "/v2/chat/completions"})
        return RawReply(chat("4"))

    end, server, _ = await ended(reply)
    assert isinstance(end, Result) and server.bodies[-1]["messages"]


@pytest.mark.parametrize("how", ["bomb", "long", "declared"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_end_is_not_read(how: str, stream: bool) -> None:
    big = b"x" * (70 * 2**20)
    headers = {"Content-Encoding": "gzip"} if how == "bomb" else {}
    body = gzip.compress(big, 1) if how == "bomb" else big
    end, server, _ = await ended(raw(body, headers=headers, cut=how == "long"), stream=stream, attempts=3)
    assert isinstance(end.__cause__, MalformedResponse) and "bigger than" in str(end), end
    assert len(server.requests) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
async def test_compressed_answers_are_read(encoding: str) -> None:
    import zlib

    data = json.dumps(chat("4")).encode()
    packed = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    packed = packed[2:-4] if encoding == "raw deflate" else packed
    end, _, _ = await ended(raw(packed, headers={"Content-Encoding": encoding.split()[-1]}))
    assert isinstance(end, Result) and end.best.text == "4", end


# In a process of its own: the server has to have descriptors left for its side.
_NO_DESCRIPTORS = """
import asyncio, resource, socket, sys

from tts_plugins import Budget, Ledger, Problem, SelfConsistency, solve
from tts_plugins.answers import prepare
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel


async def main() -> None:
    model = OpenAICompatibleModel("m", base_url=sys.argv[1], api_key="-", max_tokens=20, timeout=20)
    await model.generate(Problem("q"), [1])  # what is loaded once, is loaded
    await model.aclose()
    await model._clients.get()
    prepare()
    ledger, taken = Ledger(Budget(tokens=10_000)), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            taken.append(socket.socket())
    except OSError:
        pass
    try:
        await solve("q", model=model, strategy=SelfConsistency(n=2), budget=ledger)
    except ConfigurationError as error:
        print(f"{error} spent {tuple(ledger.spent)}")


asyncio.run(main())
"""


def test_descriptors_that_are_used_up_cost_nothing() -> None:
    pytest.importorskip("resource")
    with RawServer(raw(chat("4"))) as server:
        done = subprocess.run(
            [sys.executable, "-c", _NO_DESCRIPTORS, server.base_url], capture_output=True, text=True, timeout=90
        )
    assert "descriptor" in done.stdout and "spent (0, 0, 0)" in done.stdout, done.stdout + done.stderr


async def test_many_callers_share_an_account_on_a_server_that_counts_nothing() -> None:
    """512 at once on half of what they need: nobody overdraws, though thoughts are streamed and no usage comes."""
    pytest.importorskip("aiohttp")
    thinking = Reply("4", reasoning="word " * 20)
    with LoopbackServer(reply=[thinking], usage="missing", latency=0.02) as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=60, stream=True)
        need = (await model.bound(Problem(QUESTION))).amount.tokens
        ledger = Ledger(Budget(tokens=256 * need))
        made = await asyncio.gather(
            *(solve(QUESTION, model=model, strategy=SelfConsistency(n=1), budget=ledger) for _ in range(512)),
            return_exceptions=True,
        )
        await model.aclose()
        counts = await asyncio.to_thread(server.wait)
    assert all(isinstance(m, Result | BudgetExhausted) for m in made)
    assert sum(isinstance(m, Result) for m in made) >= 256 and ledger.open_holds == 0
    assert counts.tokens <= ledger.spent.tokens <= 256 * need and not any(ledger.overshoot)


@pytest.mark.parametrize(("body", "status"), [(b, s) for _, b, s in QUOTES], ids=[name for name, _, _ in QUOTES])
@pytest.mark.parametrize("kind", ["embedding", "process"])
async def test_no_key_shows_in_what_verifiers_ask(body: Any, status: int, kind: str) -> None:
    with RawServer(raw(body, status=status)) as server:
        model: Any = EmbeddingModel("m", base_url=server.base_url, api_key=KEY)
        verifier = ProcessVerifierHTTP("m", base_url=server.base_url, api_key=KEY, headers={"X-Gateway": HEADER})
        with pytest.raises(TTSError) as caught:
            if kind == "embedding":
                await model.generate(Problem("x"), [None])
            else:
                writer = CallableModel(lambda content: "a\n\nb", max_tokens=5)
                await solve(QUESTION, model=writer, strategy=BestOfN(n=2), verifier=verifier, attempts=1)
        await model.aclose()
    report = reported(caught.value)
    assert KEY not in report and (kind == "embedding" or HEADER not in report)


def test_the_begin_of_a_key_in_a_message_that_was_cut_is_taken_out_too() -> None:
    assert without_secrets(f"no: {KEY[:14]}", [KEY]) == "no: …"
    assert without_secrets(f"{KEY[:9]} and {KEY} and {KEY[:7]}", [f"Bearer {KEY}"]) == f"… and … and {KEY[:7]}"
    # Regression: the time grew with the square of such a message, to 37 seconds for a megabyte.
    assert without_secrets(f"{KEY[:8]} {KEY[:12]}" * 100_000, [KEY]) == "… …" * 100_000
