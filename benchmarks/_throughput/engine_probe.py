"""CPU milliseconds of the engine alone, with a model and verifier that take no time. Prints one JSON object.

Run as a file with a tree of this package first on the path, so that two trees can be measured in turn: it uses public
names only.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve
from tts_plugins.budget import Bound, Limits
from tts_plugins.models import CallableModel, ReplayModel
from tts_plugins.models.replay import recorded_answer
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Generation, Reply, Usage
from tts_plugins.verifiers import CallableVerifier
from tts_plugins.verifiers.recorded import RecordedVerifier

Solve = Callable[[], Awaitable[Any]]


class Still:
    """A model of 6 tokens that answers at once, one choice a request."""

    name, limits, batch = "still", Limits(), 1

    async def bound(self, problem: object) -> Bound:
        return Bound(prompt_tokens=20, completion_tokens=64)

    async def generate(self, problem: object, seeds: Any) -> Reply:
        n = len(seeds)
        usage = Usage(calls=n, requests=1, prompt_tokens=12, completion_tokens=6 * n)
        return Reply(generations=tuple(Generation(text="The answer is 4.", tokens=6) for _ in seeds), usage=usage)


async def half(problem: object, candidate: object) -> float:
    return 0.5


async def said(content: object) -> str:
    return "The answer is 4."


def said_on_a_thread(content: object) -> str:
    return "The answer is 4."


VERIFIER, FUNCTION, THREADED = CallableVerifier(half), CallableModel(said), CallableModel(said_on_a_thread)


async def each(make: Solve, count: int) -> float:
    """CPU milliseconds of one, of so many one after the other."""
    for _ in range(max(1, count // 10)):
        await make()
    gc.collect()
    start = time.process_time()
    for _ in range(count):
        await make()
    return (time.process_time() - start) / count * 1e3


async def at_once(count: int) -> float:
    """CPU milliseconds of one, of so many solves of n=4 at once on one ledger."""
    ledger, model = Ledger(Budget(calls=100 * count)), Still()
    gc.collect()
    start = time.process_time()
    await asyncio.gather(
        *(solve("2 + 2?", model=model, strategy=SelfConsistency(n=4), budget=ledger) for _ in range(count))
    )
    return (time.process_time() - start) / count * 1e3


async def candidate(n: int, total: int, model: CallableModel = FUNCTION) -> float:
    """CPU microseconds of a candidate, in solves of n with a function as the model."""
    times = max(1, total // n)
    gc.collect()
    start = time.process_time()
    for _ in range(times):
        await solve("2 + 2?", model=model, strategy=SelfConsistency(n=n))
    return (time.process_time() - start) / (times * n) * 1e6


async def replayed(orders: int) -> float:
    """CPU milliseconds of a replay of 16 candidates with recorded scores, eight at a time."""
    pool = synthetic_pool(25, 16, seed=1, exact=False)
    verifier, places = RecordedVerifier().of(pool), asyncio.Semaphore(8)

    async def one(model: ReplayModel, problem: Any) -> None:
        async with places:
            await solve(problem.problem(), model=model, strategy=BestOfN(n=16, select="weighted"), verifier=verifier,
                        seed=1, answer=recorded_answer)  # fmt: skip

    async def all_of(order: int) -> None:
        model = ReplayModel(pool, seed=order)
        async with asyncio.TaskGroup() as group:
            for problem in pool.problems:
                group.create_task(one(model, problem))

    await all_of(orders)  # to warm up, as in `each`; what is replayed in earnest has thousands of solves
    gc.collect()
    start = time.process_time()
    for order in range(orders):
        await all_of(order)
    return (time.process_time() - start) / (orders * len(pool.problems)) * 1e3


async def stall(n: int) -> float:
    """The longest time, in milliseconds, that the loop runs nothing else during a solve of n.

    On this thread's own clock: how long others had the core says nothing of the loop.
    """
    gc.collect()
    longest, last, ended = 0.0, time.thread_time(), False

    async def tick() -> None:
        nonlocal longest, last
        while not ended:
            now = time.thread_time()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    await solve("2 + 2?", model=FUNCTION, strategy=SelfConsistency(n=n))
    ended = True
    await ticking
    return longest * 1e3


async def main(scale: float) -> dict[str, float]:
    """Every figure; `scale` is the share of the usual work."""

    def share(count: int) -> int:
        return max(1, round(count * scale))

    one = {"model": Still(), "strategy": SelfConsistency(n=1)}
    eight = {"model": Still(), "strategy": BestOfN(n=8), "verifier": VERIFIER}
    return {
        "n=1": await each(lambda: solve("2 + 2?", **one), share(200)),
        "n=8": await each(lambda: solve("2 + 2?", budget=Budget(calls=100, tokens=100_000), **eight), share(60)),
        "100 at once": statistics.median([await at_once(share(100)) for _ in range(3)]),
        "1000 at once": await at_once(share(1000)),
        "3000 at once": await at_once(share(3000)),
        "replay": await replayed(share(8)),
        "candidate, n=10": await candidate(10, share(3000)),
        "candidate, n=1000": await candidate(share(1000), share(3000)),
        "candidate, n=10000": await candidate(share(10000), 1),
        "stall": await stall(share(4096)),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(float(sys.argv[1])))))
