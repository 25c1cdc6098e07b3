"""What is cancelled before it is sent costs nothing; what may have been sent costs its reserve."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

pytest.importorskip("aiohttp")

from aiohttp import web
from aiohttp.test_utils import TestServer

from tts_plugins import Budget, Ledger, SelfConsistency, solve, solve_sync
from tts_plugins._internal.http_limits import MOST_BYTES
from tts_plugins.engine import SolveEvents, solve_events
from tts_plugins.errors import (
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    MalformedResponse,
    ModelError,
    SolveCancelled,
)  # fmt: skip
from tts_plugins.models import CallableModel, OpenAICompatibleModel
from tts_plugins.protocols import Model
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.types import Problem

pytestmark = pytest.mark.usefixtures("transport")


async def cancelled(model: Model, when: Callable[[SolveEvents], object], n: int = 20) -> Ledger:
    """The account of a solve that is cancelled once `when` returns; its reserve is 1,000 tokens a call at least."""
    ledger = Ledger(Budget(calls=1000))
    events = solve_events("q", model=model, strategy=SelfConsistency(n=n), budget=ledger)
    solving = asyncio.ensure_future(events.wait())
    await asyncio.sleep(0)
    waited = when(events)
    if asyncio.iscoroutine(waited):
        await waited
    events.cancel()
    with pytest.raises(SolveCancelled):
        await solving
    assert ledger.open_holds == 0
    return ledger


def model_of(server: LoopbackServer, **settings: object) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(
        "loopback", base_url=server.base_url, api_key="-", max_tokens=1000, batch=1, **settings  # type: ignore[arg-type]
    )  # fmt: skip


async def busy(server: LoopbackServer, active: int) -> None:
    async with asyncio.timeout(60):
        while server.counts.active < active:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(0.01)


async def test_what_waits_for_a_place_costs_nothing() -> None:
    with LoopbackServer(latency=60.0) as server:
        model = model_of(server, concurrency=4)
        ledger = await cancelled(model, lambda _: busy(server, 4))
        assert (ledger.spent.calls, server.counts.requests) == (4, 4)
        assert ledger.spent.tokens >= 4000, "what was sent may have been worked on"
        await model.aclose()


async def test_what_has_no_connection_yet_costs_nothing() -> None:
    with LoopbackServer(latency=60.0) as server:
        model = model_of(server)

        async def begun(events: SolveEvents) -> None:
            async for event in events:
                if event["kind"] == "request":
                    return

        ledger = await cancelled(model, begun)
        assert (ledger.spent.calls, server.counts.requests) == (0, 0)
        await model.aclose()
        await asyncio.sleep(0.2)  # the server, a thread of this process, has accepted some, and notices a moment later


@pytest.mark.parametrize("seconds", [0.01, 0.03, 0.05, 0.1])
async def test_whenever_it_is_cancelled_no_less_is_charged_than_arrived(seconds: float) -> None:
    with LoopbackServer(latency=60.0) as server:
        model = model_of(server)
        await cancelled(model, lambda _: busy(server, 1), n=1)  # imports and the like are done
        before = server.counts.requests
        ledger = await cancelled(model, lambda _: asyncio.sleep(seconds))
        await asyncio.sleep(0.1)
        assert server.counts.requests - before <= ledger.spent.calls <= 20
        await model.aclose()


async def test_a_client_of_the_users_is_not_changed_and_its_queue_is_charged() -> None:
    with LoopbackServer(latency=60.0) as server:
        http = openai.DefaultAsyncHttpxClient(limits=openai.DEFAULT_CONNECTION_LIMITS)
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="-", http_client=http)
        model = OpenAICompatibleModel("loopback", client=client, max_tokens=1000, batch=1)
        ledger = await cancelled(model, lambda _: busy(server, 20))
        assert ledger.spent.calls == 20 == server.counts.requests
        assert http.event_hooks == {"request": [], "response": []}
        await client.close()


async def test_a_model_that_cannot_tell_is_charged_though_one_inside_it_could() -> None:
    with LoopbackServer(latency=60.0) as server:
        inner, asked = model_of(server), list[str]()

        async def ask(content: str) -> str:
            asked.append(content)
            reply = await inner.generate(Problem(content), [None])
            return reply.generations[0].text

        async def all_asked(_: SolveEvents) -> None:
            async with asyncio.timeout(60):
                while len(asked) < 20:  # noqa: ASYNC110 - user code may run on another loop
                    await asyncio.sleep(0)

        ledger = await cancelled(CallableModel(ask, max_tokens=10), all_asked)
        assert ledger.spent.calls == 20
        await inner.aclose()


class Gateway(openai.AsyncOpenAI):
    """Keeps its connections, whatever a copy is to have."""

    def copy(self, *, http_client: object = None, **options: object) -> Gateway:  # type: ignore[override]
        return super().copy(**options)  # type: ignore[arg-type]

    with_options = copy


def test_what_connections_of_the_users_send_unseen_costs_its_reserve() -> None:
    with LoopbackServer(latency=60.0) as server:
        client = Gateway(base_url=server.base_url, api_key="-")
        model = OpenAICompatibleModel("loopback", client=client, max_tokens=1000, batch=1)
        ledger = Ledger(Budget(calls=20))
        for _ in range(2):
            with pytest.raises((DeadlineExceeded, BudgetExhausted)):
                solve_sync(
                    "q", model=model, strategy=SelfConsistency(n=20), budget=Ledger(Budget(seconds=2.0), inside=ledger)
                )
        assert (ledger.spent.calls, server.counts.requests) == (20, 20)


def test_each_loop_has_a_client_of_a_users_function() -> None:
    made: list[openai.AsyncOpenAI] = []

    def make() -> openai.AsyncOpenAI:
        http = openai.DefaultAsyncHttpxClient(headers={"x-gateway": "mine"})
        made.append(openai.AsyncOpenAI(base_url=server.base_url, api_key="-", http_client=http))
        return made[-1]

    with LoopbackServer() as server:
        model = OpenAICompatibleModel("loopback", client=make, max_tokens=10)
        solve_sync("q", model=model, strategy=SelfConsistency(n=2))
        asyncio.run(solve("q", model=model, strategy=SelfConsistency(n=2)))
        assert len(made) == 2
        assert {request.headers.get("x-gateway") for request in server.requests} == {"mine"}


class Noting(openai.DefaultAsyncHttpxClient):
    """Connections of the user's, which note how much of an answer was read at once, and what it could be packed in."""

    read, encodings = 0, tuple[str, ...]()

    async def send(self, request: Any, **options: Any) -> Any:
        response = await super().send(request, **options)
        self.read = max(self.read, len(getattr(response, "_content", b"")))
        self.encodings = (*self.encodings, request.headers["Accept-Encoding"])
        return response


@pytest.mark.parametrize(("status", "stream", "make"), [(200, False, False), (200, True, True), (400, False, True)])
async def test_connections_of_the_users_read_no_answer_without_end(status: int, stream: bool, make: bool) -> None:
    """Regression: a bomb of a few kilobytes was unpacked as a whole, where the client had an http_client of its own."""
    good = json.dumps({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}).encode()
    answers = [(200, good), (status, b" " * (MOST_BYTES + 2**20))]

    async def handle(request: web.Request) -> web.Response:
        status, body = answers.pop(0)
        return web.Response(status=status, body=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    async with TestServer(app) as server, Noting() as http:
        client = openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="-", http_client=http)
        model = OpenAICompatibleModel("m", client=(lambda: client) if make else client, max_tokens=9, stream=stream)
        assert (await model.generate(Problem("q"), [1])).generations[0].text == "a"
        with pytest.raises(MalformedResponse if status == 200 else ModelError) as caught:
            await model.generate(Problem("q"), [1])
    assert status != 200 or "bigger than 64 MB" in str(caught.value)
    assert not caught.value.retryable and http.read <= MOST_BYTES and set(http.encodings) == {"gzip, deflate"}
    assert http.event_hooks == {"request": [], "response": []}


def test_connections_that_were_given_are_not_replaced_in_silence() -> None:
    with LoopbackServer() as server:
        http = openai.DefaultAsyncHttpxClient(headers={"x-gateway": "mine"})
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="-", http_client=http)
        model = OpenAICompatibleModel("loopback", client=client, max_tokens=10)
        with pytest.raises(ConfigurationError, match="a function that makes the client"):
            solve_sync("q", model=model, strategy=SelfConsistency(n=2))
        assert server.counts.requests == 0
