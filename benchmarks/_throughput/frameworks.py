"""Rows of LangChain and DSPy with 64 wrapped programs at once, beside what their users have without us.

Four ways are measured in turns, with the same requests through the same client:

- ours: each candidate has an account, a record and a score, and the verifier runs on a thread;
- by hand, bare: a `gather` of the calls, and the maximum. Nothing is counted; one failed call loses the other seven;
- by hand, whole: the least with which such code can work. The framework's own counter of tokens is around it, and what
  fails, be it the verifier, loses one candidate. There is no limit, no record, and the verifier runs on the loop;
- the framework's own: `abatch` of LangChain; `dspy.BestOfN`, whose attempts follow each other, in `dspy.Parallel`.

The first three tell how often Python's collector looked for garbage, too: `python -m benchmarks._throughput.frameworks`
prints that alone, for one crowd, which does not depend on how busy the machine is.

Each is measured twice: with a function of microseconds as verifier, and with a judge that is a chain or a module of its
own, so that 16 requests make a search. All of them send samples that a cache keeps apart: DSPy needs a `rollout_id` and
a temperature for that.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._rows import Row
from tts_plugins import BestOfN, Budget
from tts_plugins.testing.loopback import LoopbackServer, seeded

N, LATENCY, CROWDS = 8, 0.05, 3
BARE, WHOLE = "by hand, bare", "by hand, usage and failures handled"
Crowd = Callable[[], Awaitable[int]]
Measured = Callable[[str, Mapping[str, Crowd], int], Awaitable[list[Row]]]


def framework_rows(*, short: bool = False, base: Path | None = None) -> list[Row]:
    """Measure each framework that is installed."""
    many, times = (4, 1) if short else (64, 5)
    found = importlib.util.find_spec
    ways = [each for name, each in (("langchain_openai", _langchain), ("dspy", _dspy)) if found(name) is not None]
    return [row for way in ways for judged in (True, False) for row in asyncio.run(way(many, times, judged=judged))]


async def _langchain(many: int, times: int, measured: Measured | None = None, *, judged: bool = False) -> list[Row]:
    from langchain_core.callbacks import get_usage_metadata_callback
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from tts_plugins_langchain import scale

    from benchmarks.langchain import chain_of, chat, check

    with LoopbackServer(reply=_says, latency=LATENCY, process=True, record=False) as server:
        chain = chain_of(chat(server))
        rating = ChatPromptTemplate.from_template("Rate this answer from 0 to 1: {text}")
        judge = rating | chat(server, model="judge", temperature=0.0) | StrOutputParser()
        strategy, budget = BestOfN(n=N), Budget(tokens=100_000)
        scaled = scale(chain, strategy=strategy, verifier=judge if judged else check, budget=budget, concurrency=None)

        async def sampled(number: int) -> tuple[float, str]:
            output = await chain.ainvoke({"x": number})
            return float(await judge.ainvoke({"text": output})) if judged else check(output), output

        async def bare(number: int) -> str:
            if judged:
                return max(await asyncio.gather(*(sampled(number) for _ in range(N))))[-1]
            return max(await asyncio.gather(*(chain.ainvoke({"x": number}) for _ in range(N))), key=check)

        async def whole(number: int) -> tuple[float, str]:
            with get_usage_metadata_callback() as usage:
                ends = await asyncio.gather(*(sampled(number) for _ in range(N)), return_exceptions=True)
            assert usage.usage_metadata
            return max(_that_came(ends))

        async def batch(number: int) -> str:
            ends = await chain.abatch([{"x": number}] * N, return_exceptions=True)
            return max(_that_came(ends), key=check)

        sides = {
            "ours": lambda: _failures(scaled.ainvoke({"x": i}) for i in range(many)),
            BARE: lambda: _failures(bare(i) for i in range(many)),
            WHOLE: lambda: _failures(whole(i) for i in range(many)),
            **({} if judged else {"abatch": lambda: _failures(batch(i) for i in range(many))}),
        }
        return await (measured or _rows)(_named(f"LangChain: scale, {many} chains", judged), sides, times)


async def _dspy(many: int, times: int, measured: Measured | None = None, *, judged: bool = False) -> list[Row]:
    import dspy
    from tts_plugins_dspy import Scaled

    from benchmarks.dspy import check, model_of

    with LoopbackServer(reply=_says, latency=LATENCY, process=True, record=False) as server:
        program, lm = dspy.Predict("question -> answer"), model_of(server)
        judge, strategy = dspy.Predict("answer -> score: float"), BestOfN(n=N)
        scaled = Scaled(program, strategy=strategy, verifier=judge if judged else check, budget=Budget(calls=2 * N))
        # A predictor for itself, whose history stays empty: each attempt copies it.
        own = dspy.BestOfN(dspy.Predict("question -> answer"), N=N, reward_fn=lambda _, p: check(p), threshold=1.0)
        parallel = dspy.Parallel(num_threads=many, disable_progress_bar=True)

        async def sampled(number: int, i: int) -> tuple[float, int, Any]:
            prediction = await program.acall(question=f"why {number}?", config={"rollout_id": i})
            score = (await judge.acall(answer=prediction.answer)).score if judged else check(prediction)
            return score, i, prediction

        async def bare(number: int) -> float:
            if judged:
                return max(await asyncio.gather(*(sampled(number, i) for i in range(N))))[0]
            asked = (program.acall(question=f"why {number}?", config={"rollout_id": i}) for i in range(N))
            return max(map(check, await asyncio.gather(*asked)))

        async def whole(number: int) -> tuple[float, int, Any]:
            with dspy.track_usage() as usage:
                ends = await asyncio.gather(*(sampled(number, i) for i in range(N)), return_exceptions=True)
            assert usage.get_total_tokens()
            return max(_that_came(ends))

        async def best_of_n() -> int:
            made = parallel([(own, {"question": f"why {i}?"}) for i in range(many)])
            return sum(prediction is None for prediction in made)

        sides: dict[str, Crowd] = {
            "ours": lambda: _failures(scaled.acall(question=f"why {i}?") for i in range(many)),
            BARE: lambda: _failures(bare(i) for i in range(many)),
            WHOLE: lambda: _failures(whole(i) for i in range(many)),
            **({} if judged else {"dspy.BestOfN": best_of_n}),
        }
        with dspy.context(lm=lm):
            rows = await (measured or _rows)(_named(f"DSPy: Scaled, {many} modules", judged), sides, times)
        lm.close()
        return rows


def _named(what: str, judged: bool) -> str:
    return f"{what} at once, n={N}{f' with {N} calls of a judge' if judged else ''}"


def _says(body: dict[str, Any], index: int) -> str:
    """What the server says: a rating to both judges, and else what its framework can read."""
    text = str(body["messages"])
    rating = f"0.{len(text) % 90 + 10}"
    if "[[ ##" not in text:
        return rating if body.get("model") == "judge" else seeded(body, index)
    field, said = ("score", rating) if "`score`" in text else ("answer", "it is so")
    return f"[[ ## {field} ## ]]\n{said}\n\n[[ ## completed ## ]]"


def _that_came(ends: Iterable[Any]) -> list[Any]:
    """Return the outputs without the failures; raise the first failure where there is nothing else."""
    ends = list(ends)
    return [end for end in ends if not isinstance(end, BaseException)] or _raised(ends[0])


def _raised(error: BaseException) -> list[Any]:
    raise error


async def _failures(calls: Iterable[Awaitable[object]]) -> int:
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return sum(isinstance(end, BaseException) for end in ends)


async def _rows(what: str, sides: Mapping[str, Crowd], times: int) -> list[Row]:
    """Measure all sides in turns, each being the first as often as the others; a first turn does not count.

    A turn is several crowds, one after the other, so that each side pays for the full collections of garbage that it
    brings nearer: one crowd of ours meets its first one shortly before it ends, and by hand would shortly after.
    """
    walls, cpu = {side: list[float]() for side in sides}, {side: list[float]() for side in sides}
    failed = dict.fromkeys(sides, 0)
    looks = dict.fromkeys(sides, 0)
    names = list(sides)
    for number in range(times + 1):
        first = number % len(names)
        for side in names[first:] + names[:first]:
            gc.collect()
            start, busy, before = time.perf_counter(), time.process_time(), _looks()
            for _ in range(CROWDS):
                failed[side] += await sides[side]()
            looks[side] = (_looks() - before) // CROWDS
            if number:
                walls[side].append(time.perf_counter() - start)
                cpu[side].append(time.process_time() - busy)
    return [_row(f"{what}: wall / {side}", side, walls, cpu, failed, looks) for side in names[1:]]


def _looks() -> int:
    """Return how often the collector looked for garbage so far: about once for 700 objects more than were freed."""
    return sum(generation["collections"] for generation in gc.get_stats())


def _row(
    what: str,
    side: str,
    walls: Mapping[str, Sequence[float]],
    cpu: Mapping[str, Sequence[float]],
    failed: Mapping[str, int],
    looks: Mapping[str, int],
) -> Row:
    """Ours beside one other side. What a framework brings itself is no target: it does less at a time, or less."""
    pair, target = ("ours", side), side in (BARE, WHOLE)
    ratios = sorted(a / b for a, b in zip(walls["ours"], walls[side], strict=True))
    ratio, loads = statistics.median(ratios), [statistics.median(cpu[each]) for each in pair]
    shown = " / ".join(f"{statistics.median(walls[each]):.2f}" for each in pair)
    return Row(
        number=3, what=what, must="<= 1.10" if target else "",
        met=ratio <= 1.10 and not any(failed[each] for each in pair) if target else None,
        ours=f"{ratio:.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); {shown} s; CPU {loads[0]:.2f} / {loads[1]:.2f} s; "
        f"collections a crowd {looks['ours']} / {looks[side]}; failed {failed['ours']}, {failed[side]}",
        figures={"ours_s": walls["ours"], "other_s": walls[side], "cpu_ours_s": cpu["ours"], "cpu_other_s": cpu[side]},
    )  # fmt: skip


async def _collections(what: str, sides: Mapping[str, Crowd], times: int) -> list[Row]:
    """Count the collections of each crowd: as many as the last one's, after `times` to warm up."""
    looks = dict.fromkeys(("ours", BARE), 0)
    for side in looks:
        for _ in range(times + 1):
            gc.collect()
            before = _looks()
            await sides[side]()
            looks[side] = _looks() - before
    return [Row(number=3, what=f"{what}: collections a crowd", must="", ours=" / ".join(map(str, looks.values())))]


if __name__ == "__main__":
    for each in (_dspy, _langchain):
        print(*(f"{row.what}, ours / {BARE}: {row.ours}" for row in asyncio.run(each(64, 1, _collections))), sep="\n")
