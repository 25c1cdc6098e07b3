"""What is left after a cancellation, and whether budgets that exactly fit come to an end."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._rows import Row, Sizes
from benchmarks._serving.stage import JUDGED, SAID, Judge, answers, question
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve
from tts_plugins.errors import TTSError
from tts_plugins.models import CallableModel, OpenAICompatibleModel
from tts_plugins.testing.loopback import Counts, Fault, LoopbackServer

_PATIENCE = 30.0  # seconds after which something is called a deadlock


def _sockets() -> int:
    """Sockets that this process has open; -1 where the system does not tell."""
    try:
        links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    except OSError:
        return -1
    return sum(link.startswith("socket:") for link in links)


async def cancelled(sizes: Sizes) -> list[Row]:
    """Row 6: solves cancelled while some of their calls are sent, some wait for a place and some for the budget."""
    with LoopbackServer(process=True, reply=answers, latency=60.0, record=False) as server:
        assert server.counts.active == 0  # opens the connection over which counts are asked
        before = _sockets()
        models = [
            OpenAICompatibleModel(**SAID, base_url=server.base_url, concurrency=256, batch=batch) for batch in (1, 8)
        ]
        judge_model = OpenAICompatibleModel(**JUDGED, base_url=server.base_url)
        ledger, judge = Ledger(Budget(calls=2 * sizes.cancelled * 6, tokens=10_000_000)), Judge(judge_model)
        solves = [
            asyncio.create_task(
                solve(question(i), model=models[i % 2], strategy=BestOfN(n=8), verifier=judge, budget=ledger, seed=i)
            )
            for i in range(sizes.cancelled)
        ]
        flying = await asyncio.to_thread(server.wait, lambda counts: counts.active >= sizes.cancelled, 20.0)
        tasks_then, holds_then = len(asyncio.all_tasks()), ledger.open_holds
        start = time.perf_counter()
        for task in solves:
            task.cancel()
        ends = await asyncio.gather(*solves, return_exceptions=True)
        seconds = time.perf_counter() - start
        tasks, holds = len(asyncio.all_tasks()) - 1, ledger.open_holds
        still = await asyncio.to_thread(_settled, server)
        for model in (*models, judge_model):
            await model.aclose()
        closed = await asyncio.to_thread(_settled, server, True)
        sockets = _sockets() - before
    wrong = sum(not isinstance(end, asyncio.CancelledError) for end in ends)
    left = (tasks, holds, closed.connections, max(sockets, 0))
    figures: dict[str, Any] = {
        "in_flight": flying.active, "connections_then": flying.connections, "tasks_then": tasks_then,
        "holds_then": holds_then, "tasks": tasks, "holds": holds, "held": ledger.held.tokens, "not_cancelled": wrong,
        "connections_before_close": still.connections, "active_before_close": still.active,
        "connections_closed": closed.connections, "client_sockets": sockets, "seconds": seconds,
        "charged": ledger.spent.tokens, "server_tokens": closed.tokens,
    }  # fmt: skip
    return [
        Row(
            number=6,
            what=f"{sizes.cancelled} solves cancelled in flight: tasks, reservations, sockets at server and client",
            must="0, 0, 0, 0",
            ours=f"{', '.join(map(str, left))}; before aclose {still.active} active, {still.connections} idle; "
            f"of {tasks_then - 1} tasks, {holds_then} holds, {flying.connections} sockets, in {seconds:.2f} s",
            met=not any(left) and not wrong and still.active == 0 and ledger.held.tokens == 0,
            figures=figures,
        )
    ]


def _settled(server: LoopbackServer, closed: bool = False) -> Counts:
    """The counts when nothing is active any more (and, if `closed`, nothing connected), or after some seconds."""
    try:
        return server.wait(lambda c: c.active == 0 and (c.connections == 0 or not closed), timeout=3.0)
    except TimeoutError:
        return server.counts


async def fits(sizes: Sizes) -> list[Row]:
    """Row 7: budgets that exactly fit, with solves inside solves and with retries."""
    exactly = await _nested()
    resets = await _retried(Fault.reset(), Budget(calls=8))
    refused = await _retried(Fault.status(429, retry_after=0.02), Budget(tokens=8 * (1 + 10 + 200)))
    return [
        Row(number=7, what="3 x 3 nested solves on a budget of 9 calls", must="end", met=exactly["seconds"] is not None
            and exactly["server_choices"] == 9 == exactly["spent_calls"], figures=exactly, ours=_told(exactly)),
        Row(number=7, what="8 solves, each reset once, on a budget of 8 calls", must="end", figures=resets,
            met=resets["seconds"] is not None and resets["requests"] <= 8, ours=_told(resets)),
        Row(number=7, what="8 solves, each refused once (429), on tokens for 8", must="end", figures=refused,
            met=refused["seconds"] is not None, ours=_told(refused)),
    ]  # fmt: skip


def _told(figures: dict[str, Any]) -> str:
    if figures["seconds"] is None:
        return f"DEADLOCK after {_PATIENCE:.0f} s"
    ends = ", ".join(f"{count} {end}" for end, count in sorted(figures["ends"].items()))
    return f"{ends}; {figures['requests']} requests, {figures['spent_calls']} calls, {figures['seconds']:.2f} s"


async def _nested() -> dict[str, Any]:
    ledger, ends = Ledger(Budget(calls=9)), Counter[str]()
    with LoopbackServer(process=True, latency=0.01, reply="The answer is 42") as server:
        model = OpenAICompatibleModel("small", base_url=server.base_url, batch=1)

        async def inner(content: str) -> str:
            result = await solve(content, model=model, strategy=SelfConsistency(n=3))
            ends[f"inner {result.stopped}"] += 1
            return result.text

        async def outer() -> None:
            outcome = await solve(question(0), model=CallableModel(inner), strategy=SelfConsistency(n=3), budget=ledger)
            ends[f"outer {outcome.stopped}"] += 1

        seconds = await _patiently(outer())
        await model.aclose()
        return _figures(server.wait(), ledger, ends, seconds)


async def _retried(fault: Fault, budget: Budget) -> dict[str, Any]:
    ledger, ends = Ledger(budget), Counter[str]()
    with LoopbackServer(process=True, latency=0.01, faults=Fault.first(8, fault)) as server:
        model = OpenAICompatibleModel("small", base_url=server.base_url, max_tokens=10)

        async def one(number: int) -> None:
            try:
                result = await solve(question(number), model=model, strategy=SelfConsistency(n=1), budget=ledger)
            except TTSError as error:
                ends[type(error).__name__] += 1
            else:
                ends[result.stopped] += 1

        async def all_of_them() -> None:
            await asyncio.gather(*(one(i) for i in range(8)))

        seconds = await _patiently(all_of_them())
        await model.aclose()
        return _figures(server.wait(), ledger, ends, seconds)


async def _patiently(work: Any) -> float | None:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE):
            await work
    except TimeoutError:
        return None
    return time.perf_counter() - start


def _figures(counts: Counts, ledger: Ledger, ends: Counter[str], seconds: float | None) -> dict[str, Any]:
    return {
        "seconds": seconds, "ends": dict(ends), "requests": counts.requests, "server_choices": counts.choices,
        "spent_calls": ledger.spent.calls, "spent_tokens": ledger.spent.tokens, "open_holds": ledger.open_holds,
        "limits": {} if ledger.budget is None else ledger.budget.to_dict(),
    }  # fmt: skip
