"""What of ours is left where the event loop of a caller ends: nothing that the loop would complain of."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import openai
import pytest

from tts_plugins import SelfConsistency, solve
from tts_plugins.engine import solve_events
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.loopback import LoopbackServer

_kept: list[Any] = []


class Slow(openai.DefaultAsyncHttpxClient):
    """Connections that take many turns of the loop to close, as those over TLS do."""

    closed = 0

    async def aclose(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        await super().aclose()
        Slow.closed += 1


async def dropped_as_main_ends(models: list[Any]) -> None:
    models.clear()


async def dropped_by_a_task_that_is_cancelled(models: list[Any]) -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            models.clear()

    _kept.append(asyncio.create_task(background()))
    await asyncio.sleep(0)


async def dropped_by_a_thread_that_the_loop_joins(models: list[Any]) -> None:
    _kept.append(asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.1), models.clear())))


async def dropped_by_a_generator_that_the_loop_closes(models: list[Any]) -> None:
    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            models.clear()

    _kept.append(generator())
    await anext(_kept[-1])


async def kept_until_later(models: list[Any]) -> None:
    _kept.append(list(models))


@pytest.mark.parametrize(
    "ends",
    [
        dropped_as_main_ends, dropped_by_a_task_that_is_cancelled, dropped_by_a_thread_that_the_loop_joins,
        dropped_by_a_generator_that_the_loop_closes, kept_until_later,
    ],
)  # fmt: skip
def test_a_model_s_connections_are_closed_before_the_loop(
    ends: Callable[[list[Any]], Coroutine[Any, Any, None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: a task of ours that closes them was started too late to be waited for, and destroyed."""

    def make() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=server.base_url, api_key="-", http_client=Slow())

    async def main() -> None:
        models = [OpenAICompatibleModel("m", client=make, max_tokens=9)]
        assert (await solve("q", model=models[0], strategy=SelfConsistency(n=2))).text
        await ends(models)

    Slow.closed = 0
    with LoopbackServer() as server, caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(main())
        gc.collect()
        assert (Slow.closed, caplog.messages) == (1, [])
    _kept.clear()


@pytest.mark.parametrize("client", ["ours", "theirs"])
def test_a_model_that_many_loops_use_keeps_none_of_them(client: str) -> None:
    """Regression: each `asyncio.run` of a program left a loop behind for as long as the model lived."""

    def make() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=server.base_url, api_key="-")

    with LoopbackServer() as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=9)
        if client == "theirs":
            model = OpenAICompatibleModel("m", client=make, max_tokens=9)
        loops = []
        for _ in range(4):
            loop = asyncio.new_event_loop()
            loops.append(weakref.ref(loop))
            loop.run_until_complete(solve("q", model=model, strategy=SelfConsistency(n=2)))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            del loop
        gc.collect()
        assert [each() for each in loops] == [None] * 4


async def test_a_stream_that_was_cancelled_and_left_complains_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Regression: asyncio reported the `SolveCancelled` that was asked for, since nobody asked what came of it."""
    events = solve_events("q", model=ScriptedModel(["a"], latency=0.05), strategy=SelfConsistency(n=4))
    iterator = aiter(events)
    await anext(iterator)
    events.cancel()
    await iterator.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    del events, iterator
    gc.collect()
    assert caplog.messages == []
