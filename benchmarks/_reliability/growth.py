"""CPU by the number of candidates, how long the loop stands still, and what a loop for each call takes."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time

from benchmarks._rows import Row
from benchmarks._throughput.engine_probe import FUNCTION, THREADED, candidate, replayed, stall
from tts_plugins import SelfConsistency, solve
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import LoopbackServer

SIZES = (10, 1_000, 10_000)


def _a_loop_each(calls: int) -> float:
    """CPU milliseconds of this thread for `asyncio.run` of a solve; the server has threads of its own."""
    with LoopbackServer(reply="The answer is 4.") as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=16)
        once = lambda: asyncio.run(solve("2 + 2?", model=model, strategy=SelfConsistency(n=1)))  # noqa: E731
        once()
        start = time.thread_time()
        for _ in range(calls):
            once()
        return (time.thread_time() - start) / calls * 1e3


def measure(scale: float) -> dict[str, float]:
    """Every figure once."""
    sizes = [max(4, int(n * scale)) for n in SIZES]
    asyncio.run(candidate(sizes[0], sizes[0]))
    out = {"stall": asyncio.run(stall(max(4, int(4096 * scale))))}
    for name, model in (("coroutine", FUNCTION), ("thread", THREADED)):
        asyncio.run(candidate(sizes[0], sizes[1], model))
        for size, n in zip(SIZES, sizes, strict=True):
            out[f"{name} {size}"] = asyncio.run(candidate(n, max(n, sizes[1]), model))
    out["replay"] = 1e3 / asyncio.run(replayed(max(1, int(8 * scale))))
    out["loop"] = _a_loop_each(max(2, int(20 * scale)))
    return out


def rows(short: bool) -> list[Row]:
    """Five rows, of three runs in processes of their own."""
    scale = 0.02 if short else 1.0
    code = f"import json; from benchmarks._reliability.growth import measure; print(json.dumps(measure({scale})))"
    runs = []
    for _ in range(1 if short else 3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
        runs.append(json.loads(done.stdout))
    took = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return [
        _growth("coroutine", "an asynchronous function", 1.2, took),
        _growth("thread", "a synchronous function", 1.3, took),
        _row("longest stall of the loop, n = 4096", "<= 20 ms", f"{took['stall']:.0f} ms", took["stall"] <= 20, took),
        _row("replays of 16 candidates a CPU second", ">= 1500", f"{took['replay']:.0f}", took["replay"] >= 1500, took),
        _row("CPU of `asyncio.run` for each call", "<= 12 ms", f"{took['loop']:.1f} ms", took["loop"] <= 12, took),
    ]


def _growth(name: str, what: str, most: float, took: dict[str, float]) -> Row:
    each = [took[f"{name} {size}"] for size in SIZES]
    ours = " / ".join(f"{t:.0f}" for t in each) + f" us: {max(each) / each[0]:.2f}"
    sizes = " / ".join(f"{size:,}" for size in SIZES)
    return _row(f"CPU a candidate of {what}, n = {sizes}", f"<= {most}", ours, max(each) / each[0] <= most, took)


def _row(what: str, must: str, ours: str, met: bool, took: dict[str, float]) -> Row:
    return Row(number=0, what=what, must=must, ours=ours, met=met, figures=took)
