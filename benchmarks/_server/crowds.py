"""Many callers: all are answered, nothing is overspent, and who goes away leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import math
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._rows import Row
from benchmarks._server.stage import Proxy, ask, many, post, proxy, session
from tts_plugins.testing.loopback import Fault, LoopbackServer

_KEY = "benchmark-tenant-key"


async def best_of_four(short: bool) -> list[Row]:
    """Row 3: many Best-of-4 at once."""
    count = 100 if short else 1000
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tts-plugins.toml").write_text(
            '[profiles.four]\nstrategy = { type = "best-of-n", n = 4 }\nverifier = "tests.serving_checks:is_four"\n'
        )
        with (
            LoopbackServer(reply=["3", "4"], latency=0.1, process=True, record=False) as upstream,
            proxy(base_url=upstream.base_url, directory=folder) as server,
        ):
            async with session() as http:
                await many(20, 20, lambda i: post(http, server.url, ask(model="four/loopback")))
                before, start = server.memory(), time.perf_counter()
                answers = await many(count, count, lambda i: post(http, server.url, ask(model="four/loopback")))
                seconds, after = time.perf_counter() - start, server.memory()
    codes = Counter(status for status, _ in answers)
    right = sum(status == 200 and body["tts"]["candidates"] == 4 for status, body in answers)
    grown = (after - before) / 1e6
    met = codes == {200: count} and right == count and grown < 1.0 * count
    return [
        Row(number=3, what=f"{count} concurrent Best-of-4: answered; seconds; memory grown", must="all; -; bounded",
            ours=f"{right}; {seconds:.1f} s; {grown:.0f} MB", met=met,
            figures={"codes": dict(codes), "seconds": seconds, "megabytes": grown}),
    ]  # fmt: skip


async def one_budget(short: bool) -> list[Row]:
    """Row 4: many callers, faults, and one tenant's budget for the day.

    Whatever a request cost that was broken off, the upstream alone knows: it is charged at its reserve.
    """
    callers, limit = (64, 2_000) if short else (512, 15_000)
    reserve = (await _crowd(1, 4_000, Fault.reset())).each  # nothing but broken requests: what one is charged
    seen = await _crowd(callers, limit, Fault.random(0.3, seed=7))
    apart, at_most = seen.spent - seen.counted, math.ceil(seen.faults * reserve)
    met = seen.spent <= limit and seen.charged == seen.spent and 0 <= apart <= at_most
    return [
        Row(number=4, what=f"{callers} callers, 30 % faults, one day's budget: overshoot; upstream counted, charged",
            must="0; counted <= charged <= counted + reserve of the broken", met=met,
            ours=f"{max(0, seen.spent - limit)}; {seen.counted}, {seen.spent} of {limit}; {seen.faults} broken at "
            f"{reserve:.0f} each: at most {at_most} apart",
            figures={**asdict(seen), "reserve": reserve}),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Crowd:
    codes: dict[int, int]
    counted: int
    charged: int
    spent: int
    requests: int
    faults: int

    @property
    def each(self) -> float:
        return self.spent / self.requests


async def _crowd(callers: int, limit: int, faults: Any) -> _Crowd:
    with tempfile.TemporaryDirectory() as folder:
        digest = hashlib.sha256(_KEY.encode()).hexdigest()
        (Path(folder) / "tenants.toml").write_text(
            f'[tenants.crowd]\nkey_sha256 = "{digest}"\nday = {{ tokens = {limit} }}\n'
            "request = { tokens = 400, seconds = 20 }\n"
        )
        with LoopbackServer(
            # As long as max_tokens: it is certain then that the usage counts both choices, and no more is charged.
            reply="a b c d e f g h",
            latency=(0.01, 0.1),
            faults=faults,
            process=True,
            record=False,
        ) as upstream:
            settings: dict[str, Any] = {
                "base_url": upstream.base_url, "tenants": f"{folder}/tenants.toml", "store": f"{folder}/usage.sqlite",
                "queue_seconds": 60, "timeout": 30,
            }  # fmt: skip
            with proxy(**settings) as server:
                async with session() as http:
                    body = ask(max_tokens=8, tts={"n": 2})
                    answers = await many(
                        callers, callers, lambda i: post(http, server.url, body, Authorization=f"Bearer {_KEY}")
                    )
            upstream.wait(timeout=30)
            counts = upstream.counts
        db = sqlite3.connect(f"{folder}/usage.sqlite")
        ((charged, spent),) = db.execute("SELECT tokens, spent_tokens FROM balances").fetchall()
        db.close()
    codes = Counter(status for status, _ in answers)
    return _Crowd(dict(codes), counts.tokens, charged, spent, counts.requests, counts.faults)


async def disconnects(short: bool) -> list[Row]:
    """Row 6: callers who go away in mid-stream, all at the same moment."""
    count = 40 if short else 200
    text = " ".join(["word"] * 400)
    with (
        LoopbackServer(reply=text, per_token=0.1, process=True, record=False) as upstream,
        proxy(base_url=upstream.base_url) as server,
    ):
        async with session() as http:
            await post(http, server.url, ask(max_tokens=1))
            before = await _idle(server, http)
            begun, leave = asyncio.Semaphore(0), asyncio.Event()
            callers = [asyncio.ensure_future(_leave(http, server.url, i, begun, leave)) for i in range(count)]
            for _ in callers:
                await begun.acquire()
            await asyncio.to_thread(upstream.wait, lambda counts: counts.active >= count, 60)
            start = time.perf_counter()
            leave.set()
            await asyncio.gather(*callers)
            closed = True
            try:
                await asyncio.to_thread(upstream.wait, lambda counts: counts.active == 0, 10)
            except TimeoutError:
                closed = False
            seconds = time.perf_counter() - start
            left = await _idle(server, http) - before
    return [
        Row(number=6, what=f"{count} disconnects in mid-stream: upstream closed after; solves left",
            must="<= 1 s; 0", ours=f"{seconds:.2f} s; {left:.0f}",
            met=closed and seconds <= 1 and left == 0, figures={"seconds": seconds}),
    ]  # fmt: skip


async def _leave(http: Any, url: str, i: int, begun: asyncio.Semaphore, leave: asyncio.Event) -> None:
    body = ask(stream=True, max_tokens=500, **({"tts": {"n": 3}} if i % 2 else {}))
    async with http.post(f"{url}/chat/completions", json=body) as answer:
        await answer.content.readany()
        begun.release()
        await leave.wait()
        answer.close()


async def _idle(server: Proxy, http: Any) -> float:
    """Solves that run, as the server's own metrics say."""
    await asyncio.sleep(0.5)
    async with http.get(f"{server.root}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tts_plugins_running_solves"))


async def leaks(short: bool) -> list[Row]:
    """Row 5: memory, descriptors and solves over many requests."""
    count, rounds = (2_000, 4) if short else (100_000, 20)
    each = count // rounds
    with LoopbackServer(reply="4", process=True, record=False) as upstream, proxy(base_url=upstream.base_url) as server:
        async with session() as http:
            memory, files = [], []
            for _ in range(rounds):
                codes = Counter(s for s, _ in await many(each, 32, lambda i: _mixed(http, server.url, i)))
                assert set(codes) <= {200, 400}, codes
                memory.append(server.memory())
                files.append(server.descriptors())
            running = await _idle(server, http)
    half = rounds // 2
    slope = _slope(memory[half:]) / each * 1000 if len(memory[half:]) > 1 else 0.0
    flat = max(files[half:]) - min(files[half:]) <= 40 and running == 0
    return [
        Row(number=5, what=f"{count} requests: memory a 1,000 after warm-up; descriptors; solves left",
            must="< 1 KB; flat; 0", ours=f"{slope / 1000:.2f} KB; {files[half]} to {files[-1]}; {running:.0f}",
            met=slope < 1000 and flat, figures={"memory": memory, "descriptors": files}),
    ]  # fmt: skip


async def _mixed(http: Any, url: str, i: int) -> tuple[int, Any]:
    kind = i % 20
    extra: dict[str, Any] = {"stream": True} if kind == 1 else {"tts": {"n": 2}} if kind == 2 else {}
    return await post(http, url, ask(**extra, **({"temperature": 9} if kind == 3 else {})))


def _slope(values: list[int]) -> float:
    """Of the line of least squares through values one apart."""
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    return sum((i - middle) * (v - mean) for i, v in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))
