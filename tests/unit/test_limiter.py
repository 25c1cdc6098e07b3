"""Limits of a server: places in order of arrival, rates over a window, shared by all who call it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.waiting import until
from tts_plugins import Budget, Ledger, Limits, Problem, SelfConsistency, solve, solve_sync
from tts_plugins._calls import limiter as _limiter
from tts_plugins._calls.limiter import Limiter, limiter_of
from tts_plugins._calls.places import Place
from tts_plugins._concurrency.wait_graph import GRAPH, Wait, deliver
from tts_plugins.budget import Amount
from tts_plugins.errors import ConfigurationError, DeadlineExceeded
from tts_plugins.ledger import Hold
from tts_plugins.models import CallableModel
from tts_plugins.testing import ScriptedModel


def idle(limiter: Limiter) -> bool:
    """Nobody has one of its places, and nobody waits for one."""
    return limiter.places is not None and not limiter.places.holders and not limiter.places.waits


_inside: contextvars.ContextVar[Place | None] = contextvars.ContextVar("inside", default=None)


@contextlib.asynccontextmanager
async def place(limiter: Limiter, tokens: int = 0, hold: Hold | None = None) -> AsyncIterator[None]:
    """Have a place, inside the one that the code here has."""
    entered = await limiter.enter(tokens, hold, _inside.get())
    token = _inside.set(entered or _inside.get())
    try:
        yield
    finally:
        _inside.reset(token)
        if entered is not None:
            entered.leave()


class Gauge:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.order: list[Any] = []

    async def visit(self, limiter: Limiter, name: Any, seconds: float = 0.01, tokens: int = 0) -> None:
        async with place(limiter, tokens):
            self.now += 1
            self.peak = max(self.peak, self.now)
            self.order.append(name)
            await asyncio.sleep(seconds)
            self.now -= 1


async def test_places_are_limited_and_given_in_order() -> None:
    gauge, limiter = Gauge(), Limiter(Limits(concurrency=3))
    await asyncio.gather(*(gauge.visit(limiter, i) for i in range(20)))
    assert (gauge.peak, gauge.order) == (3, list(range(20)))
    assert idle(limiter)


async def test_who_is_cancelled_while_waiting_or_inside_leaves_its_place() -> None:
    gauge, limiter = Gauge(), Limiter(Limits(concurrency=1))
    tasks = [asyncio.create_task(gauge.visit(limiter, i, 0.01 if i else 60.0)) for i in range(4)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert gauge.order == [0]
    tasks[1].cancel()  # waits
    tasks[0].cancel()  # is inside, and hands on to who is just waking
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert gauge.order == [0, 3]
    assert idle(limiter)


async def test_a_place_is_left_when_the_request_fails() -> None:
    limiter = Limiter(Limits(concurrency=1, requests_per_minute=100))
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            async with place(limiter):
                raise ValueError("x")
    assert idle(limiter)


async def test_inside_a_place_the_same_server_is_reached_through_it_in_turns() -> None:
    gauge, limiter = Gauge(), Limiter(Limits(concurrency=2))

    async def outer(name: int) -> None:
        async with place(limiter):
            await asyncio.gather(*(gauge.visit(limiter, (name, i)) for i in range(3)))

    async with asyncio.timeout(60):
        await asyncio.gather(*(outer(i) for i in range(4)))
    assert (gauge.peak, len(gauge.order)) == (2, 12)
    assert idle(limiter)


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize("threads", [False, True])
async def test_models_that_call_each_other_end_with_one_place_each(servers: int, threads: bool) -> None:
    """Regression: each held the one place that the other one waited for, for ever."""
    models: list[CallableModel] = []
    inside, met = [0] * servers, threading.Barrier(servers)
    peaks = [0] * servers

    def speak(me: int, content: str) -> str:
        inside[me] += 1
        peaks[me] = max(peaks[me], inside[me])
        if content == "outer":
            met.wait(60)  # all places are taken now
            inside[me] -= 1
            after = (me + 1) % servers
            text = solve_sync("inner", model=models[after], strategy=SelfConsistency(n=2)).text
            inside[me] += 1
        else:
            text = "4"
        time.sleep(0.005)
        inside[me] -= 1
        return text

    async def speak_too(content: str, me: int) -> str:
        return await asyncio.to_thread(speak, me, content)

    for me in range(servers):
        function: Any = functools.partial(speak_too, me=me) if threads else functools.partial(speak, me)
        models.append(CallableModel(function, concurrency=1, name=f"m{me}"))
    results = await asyncio.wait_for(
        asyncio.gather(*(solve("outer", model=m, strategy=SelfConsistency(n=1)) for m in models)), 60
    )
    assert [r.text for r in results] == ["4"] * servers
    assert peaks == [1] * servers, "nobody is beside another one that is not itself waiting"
    for model in models:
        assert idle(limiter_of(model))
    assert not GRAPH.nested


async def test_a_place_that_may_come_free_is_waited_for() -> None:
    """No circle: who holds the place that the inner request wants is only slow."""
    first, second, gauge = Limiter(Limits(concurrency=1)), Limiter(Limits(concurrency=1)), Gauge()

    async def nested() -> None:
        async with place(first):
            await gauge.visit(second, "inner")

    slow = asyncio.create_task(gauge.visit(second, "slow", 0.05))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(nested()), asyncio.create_task(gauge.visit(first, "behind"))]
    await asyncio.wait_for(asyncio.gather(slow, *waiting), 60)
    assert gauge.order == ["slow", "inner", "behind"] and gauge.peak == 1


async def test_a_cancelled_wait_in_a_circle_leaves_nothing() -> None:
    first, second = Limiter(Limits(concurrency=1)), Limiter(Limits(concurrency=1))
    entered, asks, inside, cancelled = (asyncio.Event() for _ in range(4))
    done: list[str] = []

    async def a() -> None:
        async with place(first):
            await entered.wait()
            asks.set()
            async with place(second):
                done.append("a")

    async def b() -> None:
        async with place(second):
            entered.set()
            await asks.wait()
            async with place(first):  # it closes the circle, and is let in
                inside.set()
                await cancelled.wait()
                done.append("b")

    tasks = [asyncio.create_task(a()), asyncio.create_task(b())]
    await asyncio.wait_for(inside.wait(), 60)
    tasks[0].cancel()
    cancelled.set()
    await asyncio.wait(tasks, timeout=60)
    assert done == ["b"] and idle(first) and idle(second) and not GRAPH.nested


async def test_what_outlives_a_place_queues_like_others() -> None:
    gauge, limiter = Gauge(), Limiter(Limits(concurrency=1))
    escaped: list[asyncio.Task[None]] = []

    async def later() -> None:
        await asyncio.sleep(0.02)
        await gauge.visit(limiter, "escaped")

    async with place(limiter):
        escaped.append(asyncio.create_task(later()))
    await asyncio.gather(gauge.visit(limiter, "first", 0.05), *escaped)
    assert (gauge.peak, gauge.order) == (1, ["first", "escaped"])


def test_loops_share_places() -> None:
    limiter, now, peak, lock = Limiter(Limits(concurrency=2)), 0, 0, threading.Lock()

    async def visit() -> None:
        nonlocal now, peak
        async with place(limiter):
            with lock:
                now += 1
                peak = max(peak, now)
            await asyncio.sleep(0.005)
            with lock:
                now -= 1

    async def many() -> None:
        await asyncio.gather(*(visit() for _ in range(10)))

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert peak == 2


def test_a_loop_that_has_ended_does_not_keep_the_place_that_it_waited_for() -> None:
    limiter = Limiter(Limits(concurrency=1))
    loop = asyncio.new_event_loop()

    async def enter() -> None:
        await place(limiter).__aenter__()

    assert limiter.places is not None
    first = Place(limiter, None, None)
    assert limiter.places.enter_now(first)
    waiting = loop.create_task(enter())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # without cancelling what runs on it, as careless code does
    limiter.places.leave(first)

    async def third() -> None:
        async with asyncio.timeout(60), place(limiter):
            pass

    asyncio.run(third())
    waiting.get_coro().close()  # type: ignore[union-attr]
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_rate_of_requests_holds_over_any_window() -> None:
    limiter, times = Limiter(Limits(requests_per_minute=4), window=0.5), []

    async def visit() -> None:
        async with place(limiter):
            times.append(time.monotonic())

    await asyncio.gather(*(visit() for _ in range(12)))
    times.sort()
    # Who is let in may be a while in looking at the clock, on a busy machine.
    assert all(later - earlier >= 0.3 for earlier, later in zip(times, times[4:], strict=False))
    assert times[-1] - times[0] < 20


async def test_a_rate_of_tokens_holds_and_one_too_large_goes_alone() -> None:
    limiter, times = Limiter(Limits(tokens_per_minute=100), window=0.5), []

    async def visit(tokens: int) -> None:
        async with place(limiter, tokens):
            times.append((time.monotonic(), tokens))

    for tokens in (60, 40):
        with pytest.raises(StopIteration):
            visit(tokens).send(None)  # it waits for nothing
    for tokens in (500, 10):
        await visit(tokens)
    starts = [at - times[0][0] for at, _ in times]
    assert starts[2] >= 0.3 and starts[3] >= starts[2] + 0.3


async def test_a_rate_below_one_a_window_lets_one_pass() -> None:
    async with asyncio.timeout(60), place(Limiter(Limits(requests_per_minute=0.5))):
        pass


async def test_waiting_for_a_rate_ends_with_the_deadline() -> None:
    model, start = ScriptedModel(["a"], limits=Limits(requests_per_minute=2)), time.monotonic()
    ledger = Ledger(Budget(seconds=2, calls=5))
    result = await solve("q", model=model, strategy=SelfConsistency(n=5), budget=ledger)
    assert time.monotonic() - start < 20  # of the minute that the third would wait
    assert (result.stopped, len(result.candidates), ledger.spent.calls, ledger.open_holds) == ("deadline", 2, 2, 0)


async def test_waiting_for_a_place_ends_with_the_deadline_and_costs_nothing() -> None:
    model = ScriptedModel(["a"], latency=60, limits=Limits(concurrency=1))
    ledger = Ledger(Budget(seconds=1, calls=5))
    with pytest.raises(DeadlineExceeded):
        await solve("q", model=model, strategy=SelfConsistency(n=5), budget=ledger)
    assert (len(model.requests), ledger.spent.calls) == (1, 1)


async def test_solves_share_the_limits_of_their_model_and_others_do_not() -> None:
    def model() -> ScriptedModel:
        return ScriptedModel(["a"], latency=0.01, limits=Limits(concurrency=2))

    shared, other = model(), model()
    await asyncio.gather(*(solve("q", model=shared, strategy=SelfConsistency(n=3)) for _ in range(4)))
    assert shared.peak == 2
    assert limiter_of(shared) is limiter_of(shared) is not limiter_of(other)


def test_limiters_go_with_their_models() -> None:
    before = len(_limiter._limiters)
    model = ScriptedModel(["a"])
    limiter_of(model)
    assert len(_limiter._limiters) == before + 1
    del model
    gc.collect()
    assert len(_limiter._limiters) <= before


async def test_nested_calls_of_two_models_with_one_place_each_end() -> None:
    async def through(content: str) -> str:
        return (await solve("x", model=inner, strategy=SelfConsistency(n=2))).text

    async def back(content: str) -> str:
        if content == "leaf":
            return "#### 3"
        return (await solve("leaf", model=outer, strategy=SelfConsistency(n=1))).text

    async def start(content: str) -> str:
        return "#### 3" if content == "leaf" else await through(content)

    inner, outer = CallableModel(back, concurrency=1), CallableModel(start, concurrency=1)
    async with asyncio.timeout(60):
        result = await solve("q", model=outer, strategy=SelfConsistency(n=2), budget=Budget(calls=20))
    assert result.answer == "3"


async def test_a_hold_is_parked_while_it_waits_for_a_place() -> None:
    limiter, ledger = Limiter(Limits(concurrency=1)), Ledger(Budget(calls=2))
    first, second = ledger.reserve(Amount(calls=1)), ledger.reserve(Amount(calls=1))
    stay = place(limiter, hold=second)
    async with place(limiter, hold=first):
        waiting = asyncio.create_task(stay.__aenter__(), context=contextvars.Context())
        await asyncio.sleep(0)
        assert second.blocked and not first.blocked
    await waiting
    assert not second.blocked
    first.release()
    second.release()


@pytest.mark.parametrize("field", ["concurrency", "requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -1, True, "3"])
def test_wrong_limits_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}="):
        Limits(**{field: value})


async def test_a_problem_of_any_kind_is_one_place() -> None:
    model = ScriptedModel(["a"], limits=Limits(concurrency=1))
    result = await solve(Problem({"any": "thing"}), model=model, strategy=SelfConsistency(n=2))
    assert len(result.candidates) == 2


@pytest.mark.parametrize("what", ["places", "room"])
async def test_a_thousand_that_are_cancelled_while_they_wait_hand_on_what_they_get(what: str) -> None:
    """Regression: each did so inside the one before, up to the limit of recursion, and what was sent cost nothing."""
    limits = Limits(concurrency=1 if what == "places" else None)
    model = ScriptedModel(["4"], latency=3600, limits=limits)
    ledger = Ledger(Budget(calls=2000 if limits.concurrency else 1))
    solves = [
        asyncio.ensure_future(solve("q", model=model, strategy=SelfConsistency(n=1), budget=ledger))
        for _ in range(1000)
    ]
    await until(lambda: model.requests and ledger.open_holds == (1000 if limits.concurrency else 1))
    for each in solves:
        each.cancel()
    ends = await asyncio.gather(*solves, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    assert ledger.spent.calls == 1 and not ledger.open_holds


def test_an_interrupt_while_answers_are_told_keeps_none_from_the_others() -> None:
    """Regression: what came up meanwhile was lost with it, and whoever waited for that waited for ever."""
    heard: list[object] = []

    def first(answer: object) -> None:
        deliver([(Wait(interrupted, ()), "second"), (Wait(heard.append, ()), "third")])

    def interrupted(answer: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver([(Wait(first, ()), "first"), (Wait(heard.append, ()), "fourth")])
    assert sorted(map(str, heard)) == ["fourth", "third"]
    deliver([(Wait(heard.append, ()), "fifth")])
    assert heard[-1] == "fifth"
