"""Rows over HTTP: a server in a process of its own answers, whose CPU time is left out."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks._rows import Row
from benchmarks._serving.stage import MAX_TOKENS, Judge, question
from benchmarks._throughput.peers import ItsHub
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import LoopbackServer, seeded

LATENCY = 0.05
Work = Callable[[int], Awaitable[object]]


def says(body: dict[str, Any], index: int) -> str:
    """What the server says: a verdict that our judge and its-hub's both read, else a text of its own."""
    if body.get("model") == "judge" or "score" in str(body["messages"])[:400]:
        return json.dumps({"score": 0.1 + len(str(body["messages"])) % 80 / 100, "reasoning": "it adds up"})
    return seeded(body, index)


class Ours:
    """Best-of-8 with a judge call for each candidate, under a budget."""

    def __init__(self, server: LoopbackServer, batch: int) -> None:
        own: dict[str, Any] = {"base_url": server.base_url, "api_key": "-", "concurrency": None}
        self.model = OpenAICompatibleModel("small", temperature=0.8, max_tokens=MAX_TOKENS, batch=batch, **own)
        self.judge = OpenAICompatibleModel("judge", temperature=0.0, max_tokens=32, **own)

    async def __call__(self, number: int) -> object:
        return await solve(
            question(number), model=self.model, verifier=Judge(self.judge), strategy=BestOfN(n=8), seed=number,
            budget=Budget(calls=40, tokens=200_000),
        )  # fmt: skip

    async def close(self) -> None:
        await self.model.aclose()
        await self.judge.aclose()


def wire_rows(*, short: bool = False, base: Path | None = None) -> list[Row]:
    """Measure what a request and many solves at once cost, beside aiohttp alone and its-hub where it is installed."""
    return [*asyncio.run(_rows(short)), _fresh_loops(short), *_cold(short)]


async def _rows(short: bool) -> list[Row]:
    return [await _one_request(short), *await _best_of(short), *await _shared_ledger(short)]


async def _one_request(short: bool) -> Row:
    """CPU of a solve with one request, over that of aiohttp's request."""
    count, times = (10, 1) if short else (200, 9)
    with LoopbackServer(reply="The answer is 42.", process=True, record=False) as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=40, temperature=0.8)
        url, body = f"{server.base_url}/chat/completions", {"model": "m", "max_tokens": 40, "temperature": 0.8}
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer -"}) as session:

            async def bare(number: int) -> None:
                messages = [{"role": "user", "content": question(number)}]
                async with session.post(url, json={**body, "messages": messages, "seed": number}) as response:
                    json.loads(await response.read())

            async def ours(number: int) -> None:
                await solve(question(number), model=model, strategy=SelfConsistency(n=1), seed=number)

            found = await _turns({"ours": _row(ours, count), "bare": _row(bare, count)}, times, time.process_time)
        await model.aclose()
    ratio = statistics.median(a / b for a, b in zip(found["ours"], found["bare"], strict=True))
    mine, alone = (1e3 * statistics.median(found[k]) / count for k in ("ours", "bare"))
    return Row(
        number=2, what="CPU of a solve, n=1 / aiohttp's request", must="<= 3", met=ratio <= 3,
        ours=f"{ratio:.2f} {_spread(found)}; {mine:.2f} / {alone:.2f} ms", figures=found,
    )  # fmt: skip


async def _best_of(short: bool) -> list[Row]:
    """Best-of-8 with 8 judge calls at 50 ms: one at a time, and 64 at once."""
    many, times = (4, 1) if short else (64, 9)
    failed: dict[str, int] = {}
    with LoopbackServer(reply=says, latency=LATENCY, process=True, record=False) as server:
        ways: dict[str, Any] = {"16 requests": Ours(server, 1), "n in one request": Ours(server, 128)}
        if importlib.util.find_spec("its_hub") is not None:
            ways["its-hub"] = ItsHub(server.base_url)
        alone = await _turns({name: _counted(name, way, 1, failed) for name, way in ways.items()}, times)
        works = {name: _counted(name, way, many, failed) for name, way in ways.items()}
        crowd: dict[str, list[float]] = {name: [] for name in works}
        cpu: dict[str, list[float]] = {name: [] for name in works}
        for number in range(times + 1):
            for name in list(works) if number % 2 else list(works)[::-1]:
                gc.collect()
                wall, busy = time.perf_counter(), time.process_time()
                await works[name](number)
                if number:
                    crowd[name].append(time.perf_counter() - wall)
                    cpu[name].append(time.process_time() - busy)
        for way in ways.values():
            await way.close()
    path = 2 * LATENCY
    rows = [
        Row(number=2, what=f"Best-of-8 + judge, 50 ms, one at a time, {name}: wall / critical path",
            must="" if name == "its-hub" else "<= 1.10", ours=f"{statistics.median(alone[name]) / path:.3f}",
            met=None if name == "its-hub" else statistics.median(alone[name]) <= 1.10 * path,
            figures={"s": alone[name]})
        for name in ways
    ]  # fmt: skip
    for name, most, most_cpu in (("16 requests", 0.95, 1.2), ("n in one request", 0.6, None)):
        rows.append(_beside(name, many, crowd, cpu, most, most_cpu))
    return [*rows, Row(number=2, what="failures in all of these", must="0", ours=str(failed or 0), met=not failed)]


def _beside(
    name: str, many: int, crowd: Mapping[str, list[float]], cpu: Mapping[str, list[float]], most: float,
    most_cpu: float | None,
) -> Row:  # fmt: skip
    wall, busy = statistics.median(crowd[name]), statistics.median(cpu[name])
    said, met, must = f"{wall:.2f} s, CPU {busy:.2f} s", None, f"<= {most}" + (f"; <= {most_cpu}" if most_cpu else "")
    if "its-hub" in crowd:
        ratios = sorted(a / b for a, b in zip(crowd[name], crowd["its-hub"], strict=True))
        ratio, load = statistics.median(ratios), busy / statistics.median(cpu["its-hub"])
        met = ratio <= most and (most_cpu is None or load <= most_cpu)
        theirs = f"{statistics.median(crowd['its-hub']):.2f} s, CPU {statistics.median(cpu['its-hub']):.2f} s"
        said = f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); {load:.2f}; {said}; theirs {theirs}"
    what = f"{many} of them at once, {name}: wall / its-hub without its cap; CPU"
    return Row(number=2, what=what, must=must, met=met, ours=said, figures={"wall": crowd, "cpu": cpu})


async def _shared_ledger(short: bool) -> list[Row]:
    """512 callers of n=4 in one request over a ledger of half their need: how many run at once, what is overspent."""
    count = 16 if short else 512
    with LoopbackServer(reply="seeded", latency=(0.05, 0.2), process=True, record=False) as server:
        model = OpenAICompatibleModel(
            "m", base_url=server.base_url, api_key="-", max_tokens=MAX_TOKENS, temperature=0.8, concurrency=None
        )

        async def everybody(ledger: Ledger) -> int:
            asked = (solve(question(i), model=model, strategy=SelfConsistency(n=4), budget=ledger, seed=i)
                     for i in range(count))  # fmt: skip
            ends = await asyncio.gather(*asked, return_exceptions=True)
            return sum(isinstance(end, BaseException) for end in ends)

        await everybody(Ledger())
        need = server.wait().tokens
        server.reset()
        ledger, start = Ledger(Budget(tokens=need // 2)), time.perf_counter()
        turned_away = await everybody(ledger)
        seconds, counts = time.perf_counter() - start, server.wait()
        await model.aclose()
    over = max(0, counts.tokens - need // 2, ledger.overshoot.tokens)
    return [
        Row(number=2, what=f"{count} callers, n=4 in one request, a ledger of half their need, 50 to 200 ms: peak; "
            "overshoot", must=">= 64; 0", met=counts.peak >= 64 and over == 0,
            ours=f"{counts.peak}; {over}; {seconds:.1f} s, {turned_away} turned away",
            figures={"peak": counts.peak, "overshoot": over, "seconds": seconds}),
    ]  # fmt: skip


_LOOPS = """
import asyncio, sys, time
from tts_plugins import SelfConsistency, solve
from tts_plugins.models import OpenAICompatibleModel
model = OpenAICompatibleModel("m", base_url=sys.argv[1], api_key="-", max_tokens=40)
def one(i): asyncio.run(solve(f"q {i}", model=model, strategy=SelfConsistency(n=1), seed=i))
one(0)
start = time.process_time()
for i in range(int(sys.argv[2])): one(i)
print((time.process_time() - start) / int(sys.argv[2]))
"""
_COLD = """
import time; start, busy = time.perf_counter(), time.process_time()
import asyncio, sys
from tts_plugins import SelfConsistency, solve
from tts_plugins.models import OpenAICompatibleModel
model = OpenAICompatibleModel("m", base_url=sys.argv[1], api_key="-", max_tokens=40)
asyncio.run(solve("q", model=model, strategy=SelfConsistency(n=1), seed=1))
print(time.process_time() - busy)
"""


def _fresh_loops(short: bool) -> Row:
    """CPU of a solve on a loop of its own: `asyncio.run` for each call."""
    with LoopbackServer(reply="The answer is 42.", process=True, record=False) as server:
        taken = 1e3 * float(_child(_LOOPS, server.base_url, "3" if short else "50"))
    return Row(number=2, what="CPU of a solve by an asyncio.run of its own", must="<= 12 ms", met=taken <= 12,
               ours=f"{taken:.1f} ms", figures={"ms": taken})  # fmt: skip


def _cold(short: bool) -> list[Row]:
    """CPU until the first answer of a warm server is there, in a fresh process, with each transport."""
    found: dict[str, list[float]] = {"aiohttp": [], "openai": []}
    with LoopbackServer(reply="The answer is 42.", process=True, record=False) as server:
        for _ in range(1 if short else 5):
            for way, times in found.items():
                times.append(float(_child(_COLD, server.base_url, TTS_PLUGINS_TRANSPORT=way)))
    ours, theirs = (statistics.median(times) for times in found.values())
    return [Row(number=2, what="cold start, import to first answer: CPU / with the openai client", must="<= 1",
                met=ours <= theirs, ours=f"{ours / theirs:.2f}; {ours:.2f} / {theirs:.2f} s",
                figures=found)]  # fmt: skip


def _child(code: str, *arguments: str, **environment: str) -> str:
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    return done.stdout


def _row(one: Work, count: int) -> Work:
    async def run(number: int) -> None:
        for k in range(count):
            await one(count * number + k)

    return run


def _counted(name: str, way: Work, many: int, failed: dict[str, int]) -> Work:
    """`many` at once; those that fail are counted."""

    async def run(number: int) -> None:
        ends = await asyncio.gather(*(way(1000 * number + k) for k in range(many)), return_exceptions=True)
        lost = [end for end in ends if isinstance(end, BaseException)]
        if lost:
            failed[name] = failed.get(name, 0) + len(lost)

    return run


async def _turns(
    works: Mapping[str, Work], times: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """What each takes, one after the other, `times` over, in an order that alternates; a first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(times + 1):
        for name in list(works) if number % 2 else list(works)[::-1]:
            start = clock()
            await works[name](number)
            if number:
                found[name].append(clock() - start)
    return found


def _spread(found: Mapping[str, list[float]]) -> str:
    ratios = sorted(a / b for a, b in zip(*found.values(), strict=True))
    return f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
