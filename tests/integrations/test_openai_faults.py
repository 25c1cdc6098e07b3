"""Every fault of a server, over the real client and a real loopback server: the right error, or a part of the
candidates, charged at least what the server counted, and never past the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp")

import openai
from aiohttp import web
from aiohttp.test_utils import TestServer

from tts_plugins import BestOfN, Budget, Ledger, Problem, Result, SelfConsistency, solve, solve_sync
from tts_plugins._internal.http_errors import retry_after
from tts_plugins._internal.token_usage import Trust
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    CallTimedOut,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    MalformedResponse,
    ModelNotFound,
    RateLimited,
    RequestNotSent,
    RequestRefused,
    ServerFailed,
)
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.models._openai.tokenizer import weigh
from tts_plugins.testing import TableVerifier
from tts_plugins.testing.loopback import USAGES, Fault, LoopbackServer, Reply

pytestmark = pytest.mark.usefixtures("transport")
KEY = "sk-very-secret-4711"
SAID = "so then we add the carry and take one half of it which gives\n#### 6"
PROBLEM = "How much is it?"


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=SAID) as running:
        OpenAICompatibleModel("loopback", base_url=running.base_url)  # the table of prices is loaded once, and long
        yield running


@pytest.fixture(autouse=True)
def _fresh(server: LoopbackServer) -> Iterator[None]:
    yield
    server.configure(
        reply=SAID, latency=0.0, faults=None, usage=True, honours_n=True, n_limit=None, same_text_for_seed=False,
        refuses=(), refuses_temperature=False, refuses_max_tokens=False, api_key=None, per_token=0.0,
    )  # fmt: skip
    server.reset()


@asynccontextmanager
async def serving(server: Any, **settings: Any) -> AsyncIterator[OpenAICompatibleModel]:
    model = OpenAICompatibleModel(
        "loopback",
        **{
            "base_url": getattr(server, "base_url", None),
            "api_key": KEY,
            "max_tokens": 40,
            "temperature": 0.8,
            **settings,
        },
    )
    try:
        yield model
    finally:
        await model.aclose()


def account(**limits: Any) -> Ledger:
    return Ledger(Budget(**{"calls": 100, "tokens": 100_000, **limits}))


async def settled(server: LoopbackServer, ledger: Ledger) -> None:
    """The account covers what the server counted, and nothing is open."""
    counts = await asyncio.to_thread(server.wait)
    assert ledger.spent.tokens >= counts.tokens, (ledger.spent, counts)
    assert ledger.open_holds == 0 and ledger.held == (0, 0, 0)


async def ended(server: LoopbackServer, n: int = 2, ledger: Ledger | None = None, **settings: Any) -> Any:
    """A result, or the error that a solve ended with."""
    ledger = ledger or account(seconds=10)
    attempts = settings.pop("attempts", 2)
    async with serving(server, **settings) as model:
        try:
            end: Any = await solve(
                PROBLEM, model=model, strategy=SelfConsistency(n=n), budget=ledger, attempts=attempts, seed=1
            )
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            end = error
    await settled(server, ledger)
    return end


# What every request meets ---------------------------------------------------------------------------------------------

BROKEN = [
    (Fault.status(400), RequestRefused, "400"),
    (Fault.status(401), AuthenticationFailed, "check api_key"),
    (Fault.status(403), AuthenticationFailed, "check api_key"),
    (Fault.status(404), ModelNotFound, "check the model's name and base_url"),
    (Fault.status(408), CallTimedOut, "408"),
    (Fault.status(422), RequestRefused, "422"),
    (Fault.status(429, retry_after=0), RateLimited, "429"),
    (Fault.status(500), ServerFailed, "500"),
    (Fault.status(503, charged=True), ServerFailed, "503"),
    (Fault.status(502, body="<html><h1>Bad Gateway</h1>"), ServerFailed, "502"),
    (Fault.truncated_json(), MalformedResponse, "JSON"),
    (Fault.html(), MalformedResponse, "no completion"),
    (Fault.empty_choices(), MalformedResponse, "no choices"),
    (Fault.null_content(), MalformedResponse, "neither text nor a tool call"),
    (Fault.missing_message(), MalformedResponse, "neither text nor a tool call"),
    (Fault.reset(), ConnectionFailed, "connection failed"),
    (Fault.reset(after=20), ConnectionFailed, "connection failed"),
    (Fault.close_mid_stream(), ConnectionFailed, "connection failed"),
]
AT_ONCE = (AuthenticationFailed, ModelNotFound)
REFUSED = (*AT_ONCE, RequestRefused, RateLimited)


@pytest.mark.parametrize(("fault", "error", "words"), BROKEN, ids=lambda v: getattr(v, "kind", None) or str(v))
async def test_a_fault_of_every_request_is_one_clear_error(
    server: LoopbackServer, fault: Fault, error: type[Exception], words: str
) -> None:
    server.configure(faults=fault)
    ledger, start = account(seconds=60), time.monotonic()
    end = await ended(server, ledger=ledger)
    assert time.monotonic() - start < 30
    first = end if issubclass(error, AT_ONCE) else end.__cause__
    assert isinstance(end, AllCandidatesFailed) != issubclass(error, AT_ONCE)
    assert type(first) is error and words in str(first) and words in str(end)
    assert "loopback at http://127.0.0.1" in str(end)
    assert "\n" not in str(end) and len(str(end)) < 600
    if issubclass(error, REFUSED):
        assert ledger.spent.tokens == 0 and ledger.spent.calls == server.counts.requests
    else:
        assert ledger.spent.tokens > 0
    assert server.counts.requests == (2 if getattr(first, "retryable", False) else server.counts.requests)


@pytest.mark.parametrize(("fault", "error", "words"), BROKEN, ids=lambda v: getattr(v, "kind", None) or str(v))
async def test_a_fault_of_one_request_costs_that_candidate_or_a_retry(
    server: LoopbackServer, fault: Fault, error: type[Exception], words: str
) -> None:
    # A request that is under way as a search ends may reach its server later, among those of the next test.
    own = LoopbackServer(reply=SAID) if issubclass(error, AT_ONCE) else contextlib.nullcontext(server)
    with own as server:
        server.configure(faults={1: fault})
        ledger = account(seconds=10)
        end = await ended(server, n=3, batch=1, concurrency=1, ledger=ledger)
        assert isinstance(end, Result)
        retried, at_once = getattr(error("x"), "retryable", False), issubclass(error, AT_ONCE)
        # What no other candidate can escape ends the search. A third request may be under way by then, which is charged
        # though it may not have reached the server.
        kept = (1, 2) if at_once else (3,) if retried else (2,)
        assert (end.stopped, end.answer) == ("error" if at_once else "complete", "6") and len(end.candidates) in kept
        assert server.counts.requests in ((2, 3) if at_once else (4,) if retried else (3,))
        assert end.usage.requests == server.counts.requests or (at_once and end.usage.requests == 3)
        (failure,) = [e for e in end.trace if e["kind"] == "failure"]
        assert failure["error"].startswith(error.__name__) and words in failure["error"]
        # The request under way when the search ended is charged at its bound.
        assert at_once or end.usage.exact == (not retried or error is RateLimited)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("variant", USAGES)
@pytest.mark.parametrize("n", [1, 4])
async def test_usage_is_never_below_what_was_taken(server: LoopbackServer, variant: str, n: int, stream: bool) -> None:
    server.configure(usage=variant)
    end = await ended(server, n=n, stream=stream)
    assert isinstance(end, Result) and len(end.candidates) == n
    true = server.counts
    assert end.usage.tokens >= true.tokens
    assert end.usage.prompt_tokens >= true.prompt_tokens and end.usage.completion_tokens >= true.completion_tokens
    assert end.usage.completion_tokens <= 40 * n
    assert end.usage.calls == n and end.usage.usd is None
    if variant in ("correct", "string"):
        assert end.usage.exact and end.usage.tokens == true.tokens
    elif variant != "first_choice" or n > 1:
        assert not end.usage.exact


def answering(*bodies: Any) -> Any:
    """A server that answers each request with the next body, whatever it was asked."""
    left = iter(bodies)

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(next(left))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    return TestServer(app)


def choice(index: int, content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"index": index, "message": message, "finish_reason": "stop"}


async def test_thoughts_that_only_the_total_counts_are_charged() -> None:
    xai = {"prompt_tokens": 37, "completion_tokens": 1, "total_tokens": 530,
           "completion_tokens_details": {"reasoning_tokens": 492}}  # fmt: skip
    gemini = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 40}
    async with answering(*({"choices": [choice(0, "4")], "usage": usage} for usage in (xai, gemini))) as running:
        model = OpenAICompatibleModel("m", base_url=str(running.make_url("/v1")), api_key="-", max_tokens=40)
        charged = [(await solve("q", model=model, strategy=BestOfN(n=1))).usage for _ in "ab"]
        await model.aclose()
    assert [(usage.tokens, usage.exact) for usage in charged] == [(530, True), (40, True)]


@pytest.mark.parametrize(
    ("usage", "prompt", "completion"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 510}, 9, 501),  # past its limit, unseen
        ({"prompt_tokens": 9, "total_tokens": 510}, 9, 501),  # Gemini, where all of it was thoughts
        ({"prompt_tokens": 9, "completion_tokens": None, "total_tokens": 11}, 9, 2),
        ({"prompt_tokens": 9, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 30}}, 9, 32),
        ({"prompt_tokens": 9, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 38}}, 9, 40),
        ({"input_tokens": 9, "output_tokens": 2}, 9, 2),
        ({"input_tokens": 9, "output_tokens": 2, "cache_read_input_tokens": 5}, 14, 2),
        ({"prompt_tokens": 9, "completion_tokens": 2, "cache_read_input_tokens": 3000}, 3009, 2),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 16, "cache_creation_input_tokens": 5}, 14, 2),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "cache_read_input_tokens": 5}, 9, 2),
    ],
)
async def test_what_is_counted_under_other_names_or_beside_is_charged(usage: Any, prompt: int, completion: int) -> None:
    async with answering({"choices": [choice(0, "4")], "usage": usage}) as running:
        model = OpenAICompatibleModel("m", base_url=str(running.make_url("/v1")), api_key="-", max_tokens=40)
        charged = (await solve("q", model=model, strategy=BestOfN(n=1))).usage
        await model.aclose()
    assert (charged.prompt_tokens, charged.completion_tokens, charged.exact) == (prompt, completion, True)


TOLD = {"prompt_tokens": 5, "completion_tokens": 150, "total_tokens": 155}


async def test_choices_that_nobody_asked_for_are_no_calls_and_cost_their_tokens() -> None:
    """Regression: fifty choices for two were fifty calls, past the limit on calls."""
    body = {"choices": [choice(i, f"#### {i}") for i in range(50)], "usage": TOLD}
    async with answering(body) as other, serving(other, base_url=str(other.make_url("/v1"))) as model:
        ledger = Ledger(Budget(calls=2))
        result = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=2), budget=ledger)
    assert len(result.candidates) == 2 and ledger.spent.calls == 2 and ledger.overshoot.calls == 0
    assert ledger.usage.tokens == 155


@asynccontextmanager
async def past_the_limit() -> AsyncIterator[OpenAICompatibleModel]:
    """A model of at most 20 tokens whose server makes 500, and says so; asked one by one."""
    reported = {"prompt_tokens": 10, "completion_tokens": 500, "total_tokens": 510}
    bodies = [{"choices": [choice(0, "word " * 500)], "usage": reported} for _ in range(10)]
    async with (
        answering(*bodies) as other,
        serving(other, base_url=str(other.make_url("/v1")), max_tokens=20, batch=1, concurrency=1) as model,
    ):
        yield model


async def test_a_server_that_keeps_no_limit_is_charged_in_full_and_reserved_for_from_then_on() -> None:
    """Regression: of 5,100 tokens that a server reported, the account showed 300, and no overshoot."""
    async with past_the_limit() as model:
        ledger = Ledger(Budget(tokens=2000))
        one = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=1), budget=ledger)
        bound = await model.bound(Problem(PROBLEM))
        rest = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=9), budget=ledger)
    assert one.usage.exact and one.usage.tokens == 510 and one.usage.overshoot == ledger.overshoot.tokens > 300
    assert (bound.prompt_tokens, bound.completion_tokens) == (10, 500)
    assert rest.stopped == "budget" and len(rest.candidates) == 2 and rest.usage.overshoot == 0
    assert ledger.usage.tokens == 3 * 510


async def test_what_was_reserved_is_not_sent_once_others_went_past_the_limit() -> None:
    """Ten were reserved at once, and went one by one, though the first four had used the limit up."""
    async with past_the_limit() as model:
        ledger = Ledger(Budget(tokens=2000))
        result = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=10), budget=ledger)
    assert result.stopped == "budget" and 2 <= len(result.candidates) <= 4
    assert ledger.usage.tokens == 510 * len(result.candidates) and ledger.open_holds == 0


async def test_what_a_filter_withheld_is_paid_for_once() -> None:
    body = {"choices": [{**choice(0, None), "finish_reason": "content_filter"}], "usage": TOLD}
    async with answering(body, body, body) as other, serving(other, base_url=str(other.make_url("/v1"))) as model:
        reply = await model.generate(Problem(PROBLEM), [1])
        result = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=2), budget=Budget(calls=2, tokens=4000))
    assert (reply.generations[0].text, reply.generations[0].finish_reason) == ("", "content_filter")
    assert reply.usage.exact and reply.usage.completion_tokens == TOLD["completion_tokens"]
    assert result.stopped == "complete" and result.usage.requests == 2 and result.usage.exact


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ({"error": {"message": "no room left", "code": 529}}, ServerFailed, "no room left"),
        ({"choices": [choice(0, 42)], "usage": TOLD}, MalformedResponse, "neither text nor a tool call"),
        ({"choices": [choice(0, {"a": 1})], "usage": TOLD}, MalformedResponse, "neither text nor a tool call"),
        ({"choices": [choice(0, None, tool_calls="x")], "usage": TOLD}, MalformedResponse, "neither text nor a tool"),
    ],
)  # fmt: skip
async def test_what_says_nothing_is_no_answer(body: Any, error: type[Exception], words: str) -> None:
    async with answering(body) as other, serving(other, base_url=str(other.make_url("/v1"))) as model:
        with pytest.raises(error, match=words):
            await model.generate(Problem(PROBLEM), [1])


async def test_an_error_within_a_stream_is_told_as_one() -> None:
    async def handle(request: web.Request) -> web.Response:
        said = json.dumps({"error": {"message": "no room left", "code": 500}})
        return web.Response(body=f"data: {said}\n\n".encode(), content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    async with TestServer(app) as other, serving(other, base_url=str(other.make_url("/v1")), stream=True) as model:
        with pytest.raises(ServerFailed, match=r"broke off with an error: .*500, no room left"):
            await model.generate(Problem(PROBLEM), [1])


def chunk(**said: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "finish_reason": None, **said}]})


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(delta={"content": "It is 42."}, finish_reason="stop"), "[DONE]", chunk(delta={"content": " Or 43."})],
        [chunk(message={"role": "assistant", "content": "It is 42."}, finish_reason="stop"), "[DONE]"],
        [chunk(message={"content": "It"}), chunk(message={"content": "It is 42."}), "[DONE]"],
        [
            chunk(delta={"content": "It is 42."}, message={"content": "It is 42."}),
            chunk(delta={}, message={}),
            "[DONE]",
        ],
    ],
    ids=["after the end", "a whole message", "growing messages", "both"],
)
async def test_a_stream_in_another_form_is_read_as_what_it_says(chunks: list[str]) -> None:
    async def handle(request: web.Request) -> web.Response:
        body = "".join(f"data: {each}\n\n" for each in chunks)
        return web.Response(body=body.encode(), content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    async with TestServer(app) as other, serving(other, base_url=str(other.make_url("/v1")), stream=True) as model:
        reply = await model.generate(Problem(PROBLEM), [1])
    assert [each.text for each in reply.generations] == ["It is 42."]


@pytest.mark.parametrize("tokenizer", [False, True])
@pytest.mark.parametrize("variant", ["correct", "first_choice"])
async def test_two_choices_are_counted_by_proof_or_at_their_bound(
    server: LoopbackServer, variant: str, tokenizer: bool
) -> None:
    """Texts of five bytes a token: what is said of one looks as if it could be of both."""
    server.configure(
        usage=variant, tokenizer=tokenizer, reply=["four five more here " * 10, "some more each time " * 10]
    )
    async with serving(server, max_tokens=200) as model:
        for _ in range(2):
            server.reset()
            ledger = account()
            await solve(PROBLEM, model=model, strategy=SelfConsistency(n=2), budget=ledger)
            await settled(server, ledger)
            assert ledger.usage.exact is (tokenizer and variant == "correct")
    assert server.counts.completion_tokens == 80
    server.configure(tokenizer=False)


async def test_openai_s_own_count_is_that_of_all_choices() -> None:
    trust = Trust()
    client = openai.AsyncOpenAI(base_url="https://api.openai.com/v1", api_key="-")
    await weigh(trust, 10, client, "gpt-4o-mini", ["w" * 24] * 2)  # nothing is sent
    await client.close()
    assert trust.proven


@pytest.mark.parametrize("variant", USAGES)
async def test_a_token_budget_holds_whatever_usage_says(server: LoopbackServer, variant: str) -> None:
    server.configure(usage=variant, reply="seeded")
    ledger = account(tokens=900, seconds=10)
    end = await ended(server, n=64, batch=3, ledger=ledger)
    assert isinstance(end, Result) and end.stopped == "budget"
    assert server.counts.tokens <= ledger.spent.tokens <= 900


@pytest.mark.parametrize(
    "fault",
    [
        Fault.hang(), Fault.slow_trickle(interval=2.0, size=4), Fault.status(429, retry_after=90),
        Fault.status(503, retry_after=90),
    ],
    ids=lambda fault: str(fault.kind),
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_lasts_past_the_deadline(server: LoopbackServer, fault: Fault, stream: bool) -> None:
    server.configure(faults=fault)
    ledger, start = account(seconds=0.6), time.monotonic()
    async with serving(server, stream=stream) as model:
        with pytest.raises((DeadlineExceeded, AllCandidatesFailed)):
            await solve(PROBLEM, model=model, strategy=SelfConsistency(n=3), budget=ledger)
        assert time.monotonic() - start < 20  # of the minutes that each fault lasts
        await settled(server, ledger)


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.slow_trickle(interval=0.5, size=4)], ids=lambda f: str(f.kind))
@pytest.mark.parametrize("stream", [False, True])
async def test_the_time_for_one_call_is_that_of_the_whole_call(
    server: LoopbackServer, fault: Fault, stream: bool
) -> None:
    server.configure(faults={0: fault})
    start = time.monotonic()
    end = await ended(server, n=1, timeout=1.5, stream=stream)  # in which the second one has to be answered
    assert isinstance(end, Result) and end.usage.requests == 2
    assert 1.5 <= time.monotonic() - start < 20


async def test_candidates_that_came_in_time_are_returned_at_the_deadline(server: LoopbackServer) -> None:
    server.configure(faults={1: Fault.hang()})
    ledger, start = account(seconds=2.0), time.monotonic()
    async with serving(server, batch=1) as model:
        result = await solve(PROBLEM, model=model, strategy=SelfConsistency(n=3), budget=ledger)
    assert 2.0 <= time.monotonic() - start < 20
    assert (result.stopped, len(result.candidates), result.answer) == ("deadline", 2, "6")
    await settled(server, ledger)


# Retry-After ----------------------------------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(("asked", "least"), [("0.4", 0.39), ("0", 0.0), (http_date, 0.8), ("soon", 0.0)])
async def test_retry_after_is_honoured(server: LoopbackServer, asked: Any, least: float) -> None:
    # a date has whole seconds only: two from now is more than one away
    server.configure(faults={0: Fault.status(429, retry_after=asked(2) if callable(asked) else asked)})
    start = time.monotonic()
    end = await ended(server, n=1)
    assert isinstance(end, Result)
    assert least <= time.monotonic() - start < 20
    assert end.usage.requests == end.usage.calls == 2


@pytest.mark.parametrize("fault", [Fault.status(429, retry_after=3600), Fault.status(503, retry_after=86000)])
async def test_without_a_deadline_no_wait_is_endless(server: LoopbackServer, fault: Fault) -> None:
    server.configure(faults=fault)
    async with serving(server) as model:
        with pytest.raises(
            AllCandidatesFailed, match=r"asks to wait \d+ s, .* at most 120 s .*give Budget\(seconds="
        ) as end:
            await asyncio.wait_for(solve(PROBLEM, model=model, strategy=SelfConsistency(n=2), budget=account()), 60)
    assert isinstance(end.value.__cause__, RateLimited | ServerFailed) and end.value.__cause__.retry_after >= 3600


def test_milliseconds_come_first_and_what_is_no_time_is_none() -> None:
    # The loopback server has one header only; real ones send both.
    now = time.time()
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}, now) == 0.25
    assert retry_after({"retry-after-ms": "x", "retry-after": "1.5"}, now) == 1.5
    for value in ("nan", "inf", "-1", "1e9", "", "soon", http_date(-60)):
        assert retry_after({"retry-after": value}, now) is None


# What servers do in other ways ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_ignores_n_is_asked_singly(server: LoopbackServer, stream: bool) -> None:
    server.configure(honours_n=False, reply="seeded")
    end = await ended(server, n=5, stream=stream)
    assert isinstance(end, Result) and len({c.text for c in end.candidates}) == 5
    assert [r.body.get("n", 1) for r in server.requests] == [5, 1, 1, 1, 1]
    assert end.usage.calls == 5
    assert sorted(r.body["seed"] for r in server.requests) == sorted(c.seed for c in end.candidates)


async def test_fewer_choices_than_asked_are_topped_up(server: LoopbackServer) -> None:
    server.configure(faults=Fault.partial_choices(2))
    end = await ended(server, n=5)
    assert isinstance(end, Result) and len(end.candidates) == 5
    assert [r.body.get("n", 1) for r in server.requests] == [5, 3, 1]
    assert end.usage.calls == server.counts.choices == 5


async def test_more_choices_than_a_server_has_slots_are_asked_singly(server: LoopbackServer) -> None:
    server.configure(n_limit=2)
    end = await ended(server, n=4)
    assert isinstance(end, Result) and len(end.candidates) == 4
    assert end.usage.requests == server.counts.requests


@pytest.mark.parametrize(
    ("refuses", "gone"),
    [({"refuses_temperature": True}, "temperature"), ({"refuses": ["seed"]}, "seed"), ({"refuses": ["n"]}, "n")],
)
async def test_a_parameter_that_is_refused_is_left_out(
    server: LoopbackServer, refuses: dict[str, Any], gone: str
) -> None:
    server.configure(**refuses)
    end = await ended(server, n=3)
    assert isinstance(end, Result) and len(end.candidates) == 3
    assert gone in server.requests[0].body and gone not in server.requests[-1].body
    assert end.usage.requests == server.counts.requests


async def test_max_tokens_is_renamed_where_that_is_asked_for(server: LoopbackServer) -> None:
    server.configure(refuses_max_tokens=True)
    end = await ended(server, n=1)
    assert isinstance(end, Result)
    assert "max_tokens" not in server.requests[-1].body
    assert server.requests[-1].body["max_completion_tokens"] == 40


async def test_a_parameter_that_is_refused_and_cannot_be_spared_is_an_error(server: LoopbackServer) -> None:
    server.configure(refuses=["logprobs"])
    end = await ended(server, n=2, logprobs=True)
    assert isinstance(end.__cause__, RequestRefused) and "logprobs" in str(end)


async def test_requests_refused_on_the_way_are_counted_though_the_last_one_fails(server: LoopbackServer) -> None:
    server.configure(refuses_temperature=True, refuses=("seed", "top_p"))
    ledger = account()
    await ended(server, n=1, top_p=0.9, ledger=ledger)
    assert ledger.usage.requests == server.counts.requests == 3 and ledger.spent.calls == 1
    server.reset()
    server.configure(refuses=("seed",), faults={2: Fault.status(500)})
    ledger = account()
    end = await ended(server, n=1, ledger=ledger, attempts=1)
    assert isinstance(end, AllCandidatesFailed)
    assert ledger.usage.requests == server.counts.requests == 3


async def test_one_text_for_a_seed_is_noticed_and_asked_for_again(server: LoopbackServer) -> None:
    def long(body: Any, index: int) -> str:
        return f"{index} " + "and so on it goes " * 12

    server.configure(same_text_for_seed=True, reply=long)
    end = await ended(server, n=4, max_tokens=200)
    assert isinstance(end, Result)
    assert len({c.text for c in end.candidates}) == 4
    assert end.usage.completion_tokens >= server.counts.completion_tokens


async def test_a_tool_call_is_a_candidate_with_its_message(server: LoopbackServer) -> None:
    call = {"name": "weather", "arguments": '{"city": "Bern"}'}
    server.configure(reply=lambda body, index: Reply(None, tool_calls=[call]))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    end = await ended(server, n=1, params={"tools": tools})
    assert isinstance(end, Result)
    assert end.output.tool_calls[0].function.name == "weather"
    assert json.loads(end.output.tool_calls[0].function.arguments) == {"city": "Bern"}
    assert (end.text, end.best.finish_reason) == ("", "tool_calls")
    assert server.requests[0].body["tools"] == tools
    json.dumps(end.trace.to_dict())


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_without_content_is_no_error_where_it_was_cut(server: LoopbackServer, stream: bool) -> None:
    server.configure(reply=lambda body, index: Reply(None, reasoning="let me think " * 40))
    end = await ended(server, n=2, stream=stream)
    assert isinstance(end, Result)
    assert (end.best.truncated, end.best.finish_reason, end.text) == (True, "length", "")
    assert end.best.reasoning is not None and end.best.reasoning.startswith("let me think")
    assert end.usage.completion_tokens >= server.counts.completion_tokens == 80


async def test_what_was_cut_is_told_and_no_wrong_answer_wins_by_it(server: LoopbackServer) -> None:
    texts = ["1 " * 100, "short #### 6", "2 " * 100]
    server.configure(reply=lambda body, index: texts[index % 3], indexing="arrival")
    end = await ended(server, n=3, batch=1, concurrency=1)
    assert isinstance(end, Result)
    assert sorted(c.truncated for c in end.candidates) == [False, True, True]
    assert all(c.finish_reason == "length" for c in end.candidates if c.truncated)
    server.configure(indexing="seed")


async def test_the_right_body_under_a_wrong_name_is_an_answer(server: LoopbackServer) -> None:
    server.configure(faults=Fault.wrong_content_type())
    end = await ended(server)
    assert isinstance(end, Result) and end.text == SAID


async def test_log_probabilities_are_kept(server: LoopbackServer) -> None:
    end = await ended(server, n=2, logprobs=True)
    assert isinstance(end, Result)
    assert all(c.logprobs is not None and len(c.logprobs) == 16 for c in end.candidates)


async def test_a_stream_that_is_cut_is_no_answer(server: LoopbackServer) -> None:
    for fault in (Fault.close_mid_stream(after=3), Fault.stream_without_done(after=3), Fault.reset(after=200)):
        server.configure(faults={0: fault})
        server.reset()
        end = await ended(server, n=1, stream=True)
        assert isinstance(end, Result) and end.text == SAID, fault
        assert end.usage.requests == 2


async def test_nobody_listens_there(server: LoopbackServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        ledger = account(seconds=10)
        end = await ended(server, ledger=ledger, base_url=address)
    assert isinstance(end.__cause__, ConnectionFailed) and "is the server running there?" in str(end)
    assert (ledger.spent.calls, ledger.spent.tokens) == (2, 0)


async def test_one_sample_at_temperature_0_is_fine_and_several_are_an_error(server: LoopbackServer) -> None:
    assert isinstance(await ended(server, n=1, temperature=0), Result)
    server.reset()
    end = await ended(server, n=2, temperature=0)
    assert isinstance(end, ConfigurationError) and "set temperature" in str(end)


# Clients --------------------------------------------------------------------------------------------------------------


async def test_a_client_of_the_users_own_is_used_and_left_as_it_was(server: LoopbackServer) -> None:
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key=KEY, max_retries=5, default_headers={"x-team": "blue"}
    ) as client:
        server.configure(faults={0: Fault.status(500)})
        end = await ended(server, n=1, client=client, base_url=None, api_key=None)
        assert isinstance(end, Result) and end.usage.requests == 2  # and not 6: its own retries are off
        assert server.requests[0].headers["x-team"] == "blue"
        assert client.max_retries == 5 and not client.is_closed()
        said = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert said.choices[0].message.content == SAID


async def test_azure_works_with_its_own_client(server: LoopbackServer) -> None:
    async with openai.AsyncAzureOpenAI(azure_endpoint=server.root_url, api_key=KEY, api_version="2026-01-01") as client:
        end = await ended(server, n=3, client=client, base_url=None, api_key=None)
        assert isinstance(end, Result) and len(end.candidates) == 3
        assert server.requests[0].path == "/openai/deployments/loopback/chat/completions"
        assert server.requests[0].headers["api-key"] == KEY
        server.configure(faults=Fault.status(401, body=f"the key {KEY} is wrong"))
        server.reset()
        end = await ended(server, client=client, base_url=None, api_key=None)
        assert isinstance(end, AuthenticationFailed) and KEY not in str(end)


@pytest.mark.parametrize("own", [False, True])
async def test_three_loops_at_once(server: LoopbackServer, own: bool) -> None:
    client = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) if own else None
    settings: dict[str, Any] = {"client": client} if own else {"base_url": server.base_url, "api_key": KEY}
    model = OpenAICompatibleModel("loopback", max_tokens=40, temperature=0.8, batch=1, **settings)
    server.configure(latency=0.02)
    ask: dict[str, Any] = {"model": model, "strategy": SelfConsistency(n=4)}

    async def many() -> list[Result]:
        return await asyncio.gather(*(solve(PROBLEM, **ask) for _ in range(3)))

    async with asyncio.timeout(60):
        first = await solve(PROBLEM, **ask)  # a client of the user's own belongs to the loop that uses it first
        here, there, sync, again = await asyncio.gather(
            many(),
            asyncio.to_thread(asyncio.run, many()),
            asyncio.to_thread(solve_sync, PROBLEM, **ask, budget=Budget(seconds=10)),
            asyncio.to_thread(solve_sync, PROBLEM, **ask, budget=Budget(seconds=10)),
        )
    assert all(len(r.candidates) == 4 and r.answer == "6" for r in (first, *here, *there, sync, again))
    assert server.counts.requests == 36
    await model.aclose()
    if client is not None:
        await client.close()


async def test_cancelled_solves_leave_no_connection() -> None:
    with LoopbackServer(reply=SAID, latency=30) as server:
        ledger = account(calls=1000)
        async with serving(server, batch=1) as model:
            tasks = [
                asyncio.create_task(solve(PROBLEM, model=model, strategy=SelfConsistency(n=4), budget=ledger))
                for _ in range(20)
            ]
            await asyncio.to_thread(server.wait, lambda counts: counts.active >= 80)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await settled(server, ledger)
            assert server.counts.aborted == 80
        await asyncio.to_thread(server.wait, lambda counts: counts.connections == 0)


@pytest.mark.parametrize("sync", [False, True])
async def test_a_model_that_is_dropped_after_a_failure_closes_its_connections(sync: bool) -> None:
    with LoopbackServer(faults=Fault.status(422)) as server:
        model = OpenAICompatibleModel("loopback", base_url=server.base_url, api_key=KEY, max_tokens=4, batch=1)
        ask: dict[str, Any] = {"model": model, "strategy": SelfConsistency(n=3)}
        try:
            await (asyncio.to_thread(solve_sync, PROBLEM, **ask) if sync else solve(PROBLEM, **ask))
        except AllCandidatesFailed as error:
            kept = error  # with its frames, which refer to the model
        assert server.counts.connections == 3
        del model, ask, kept
        end = time.monotonic() + 60
        while server.counts.connections and time.monotonic() < end:
            await asyncio.sleep(0.02)  # a loop and a thread may still hold what they have just delivered
            gc.collect()
        assert server.counts.connections == 0


# Secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(401), Fault.status(500), Fault.html(), Fault.reset(),
        Fault.status(401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})),
        Fault.status(400, body=f"what is {KEY}?"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)  # fmt: skip
async def test_the_key_never_shows(server: LoopbackServer, fault: Fault) -> None:
    server.configure(faults=fault)
    shown: list[str] = []
    async with serving(server) as model:
        shown.append(repr(model))
        try:
            await solve(
                PROBLEM, model=model, strategy=SelfConsistency(n=2), attempts=1,
                listener=lambda event: shown.append(json.dumps(event)),
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            chain: BaseException | None = error
            while chain is not None and type(chain).__module__.startswith("tts_plugins"):
                shown += [str(chain), repr(chain)]
                chain = chain.__cause__
    assert len(shown) > 4
    assert not any(KEY in text for text in shown)


async def test_a_password_in_the_address_never_shows(server: LoopbackServer) -> None:
    address = server.base_url.replace("//", f"//user:{KEY}@")
    server.configure(faults=Fault.status(500))
    shown = [repr(OpenAICompatibleModel("loopback", base_url=address, max_tokens=4))]
    end = await ended(server, base_url=address, attempts=1)
    shown.append(str(end))
    assert "127.0.0.1" in shown[0] and not any(KEY in text for text in shown)


# Everything at once ---------------------------------------------------------------------------------------------------


async def test_a_storm_of_faults_ends_with_a_balanced_account(server: LoopbackServer) -> None:
    kinds = [
        Fault.reset(), Fault.reset(after=30), Fault.status(500), Fault.status(429, retry_after=0), Fault.html(),
        Fault.truncated_json(), Fault.null_content(), Fault.no_usage(), Fault.negative_usage(),
        Fault.partial_choices(1), Fault.slow_trickle(0.01, 64), Fault.hang(), Fault.status(400),
    ]  # fmt: skip
    server.configure(
        faults=lambda number: kinds[number % len(kinds)] if number % 3 == 0 else None, reply="seeded", latency=(0, 0.03)
    )
    ledger = Ledger(Budget(tokens=40_000, calls=400))
    async with serving(server, batch=2, timeout=1.0) as model, asyncio.timeout(40):
        ends = await asyncio.gather(
            *(
                solve(
                    f"{PROBLEM} {i}", model=model, verifier=TableVerifier({}, default=0.5), strategy=BestOfN(n=4),
                    budget=Ledger(Budget(seconds=10), inside=ledger), seed=i,
                )
                for i in range(40)
            ),
            return_exceptions=True,
        )  # fmt: skip
        await settled(server, ledger)
    assert all(isinstance(e, Result | AllCandidatesFailed | BudgetExhausted | DeadlineExceeded) for e in ends), [
        e for e in ends if not isinstance(e, Result)
    ]
    assert sum(isinstance(e, Result) for e in ends) > 30, [e for e in ends if not isinstance(e, Result)]
    assert ledger.spent.tokens <= 40_000 and ledger.spent.calls <= 400
    assert Problem(PROBLEM).text == PROBLEM


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("batch", [128, 1])
def test_arguments_that_the_client_refuses_cost_nothing(server: LoopbackServer, own: bool, batch: int) -> None:
    """They are not answers that could not be read: no other attempt can do better."""
    before, ledger = server.counts.requests, Ledger(Budget(calls=50, tokens=9_000))
    given: dict[str, Any] = {"base_url": server.base_url, "api_key": "-"}
    where = given if own else {"client": openai.AsyncOpenAI(**given)}
    for params, said in (({"temprature": 1}, "unexpected keyword argument 'temprature'"), ({"user": object()}, "JSON")):
        model = OpenAICompatibleModel("loopback", max_tokens=9, batch=batch, params=params, **where)
        with pytest.raises(TypeError, match=said) as caught:
            solve_sync(PROBLEM, model=model, strategy=SelfConsistency(n=8), budget=ledger)
        assert isinstance(caught.value, RequestNotSent) and isinstance(caught.value.__cause__, TypeError)
    assert ledger.spent == Ledger().spent and ledger.open_holds == 0 and server.counts.requests == before
    model = OpenAICompatibleModel("loopback", max_tokens=9, **where)
    assert solve_sync(PROBLEM, model=model, strategy=SelfConsistency(n=2), budget=ledger).usage.calls == 2
