"""Rows of LangChain and DSPy with 64 wrapped programs at once, beside the same requests by hand."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from benchmarks._rows import Row
from tts_plugins import BestOfN, Budget
from tts_plugins.testing.loopback import LoopbackServer

N, LATENCY = 8, 0.05
Crowd = Callable[[], Awaitable[int]]


def framework_rows(*, short: bool = False, base: Path | None = None) -> list[Row]:
    """Measure each framework that is installed."""
    many, times = (4, 1) if short else (64, 9)
    rows = []
    if importlib.util.find_spec("langchain_openai") is not None:
        rows.append(asyncio.run(_langchain(many, times)))
    if importlib.util.find_spec("dspy") is not None:
        rows.append(asyncio.run(_dspy(many, times)))
    return rows


async def _langchain(many: int, times: int) -> Row:
    from tts_plugins_langchain import scale

    from benchmarks.langchain import chain_of, chat, check

    with LoopbackServer(reply="seeded", latency=LATENCY, process=True, record=False) as server:
        chain = chain_of(chat(server))
        scaled = scale(chain, strategy=BestOfN(n=N), verifier=check, budget=Budget(tokens=100_000), concurrency=None)

        async def alone(number: int) -> str:
            return max(await asyncio.gather(*(chain.ainvoke({"x": number}) for _ in range(N))), key=check)

        async def by_hand() -> int:
            return await _failures(alone(i) for i in range(many))

        async def ours() -> int:
            return await _failures(scaled.ainvoke({"x": i}) for i in range(many))

        return await _row(f"LangChain: scale, {many} chains at once, n={N}", ours, by_hand, times)


async def _dspy(many: int, times: int) -> Row:
    import dspy
    from tts_plugins_dspy import Scaled

    from benchmarks.dspy import ANSWER, check, model_of

    with LoopbackServer(reply=ANSWER, latency=LATENCY, process=True, record=False) as server:
        program, lm = dspy.Predict("question -> answer"), model_of(server)
        scaled = Scaled(program, strategy=BestOfN(n=N), verifier=check, budget=Budget(calls=N))

        async def alone(number: int) -> float:
            asked = (program.acall(question=f"why {number}?", config={"rollout_id": i}) for i in range(N))
            return max(map(check, await asyncio.gather(*asked)))

        async def by_hand() -> int:
            return await _failures(alone(i) for i in range(many))

        async def ours() -> int:
            return await _failures(scaled.acall(question=f"why {i}?") for i in range(many))

        with dspy.context(lm=lm):
            row = await _row(f"DSPy: Scaled, {many} modules at once, n={N}", ours, by_hand, times)
        lm.close()
        return row


async def _failures(calls: Iterable[Awaitable[object]]) -> int:
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return sum(isinstance(end, BaseException) for end in ends)


async def _row(what: str, ours: Crowd, by_hand: Crowd, times: int) -> Row:
    """The two in turns; a first pair does not count."""
    walls: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    failed = [0, 0]
    for number in range(times + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            gc.collect()
            start, busy = time.perf_counter(), time.process_time()
            failed[which] += await (ours, by_hand)[which]()
            if number:
                walls[which].append(time.perf_counter() - start)
                cpu[which].append(time.process_time() - busy)
    ratios = sorted(a / b for a, b in zip(*walls, strict=True))
    ratio, loads = statistics.median(ratios), [statistics.median(side) for side in cpu]
    return Row(
        number=3, what=f"{what}: wall / by hand", must="<= 1.10", met=ratio <= 1.10 and failed == [0, 0],
        ours=f"{ratio:.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); {statistics.median(walls[0]):.2f} / "
        f"{statistics.median(walls[1]):.2f} s; CPU {loads[0]:.2f} / {loads[1]:.2f} s; failed {failed[0]}, {failed[1]}",
        figures={"ours_s": walls[0], "by_hand_s": walls[1], "cpu_ours_s": cpu[0], "cpu_by_hand_s": cpu[1]},
    )  # fmt: skip
