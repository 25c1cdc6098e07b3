"""Wall time against the same requests sent bare, rounds of a vote, and the client's CPU."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks._rows import Row, Sizes, Spread
from benchmarks._serving.stage import Stage, Work, paired, question, stage
from tts_plugins import SelfConsistency, solve
from tts_plugins.stopping import VoteDecided

FORMS = (("8 requests", False), ("one of n=8", True))


async def wall(sizes: Sizes) -> list[Row]:
    """Row 1: Best-of-8 with a verifier call each, at 50 ms."""
    rows = []
    async with stage(latency=0.05) as on:
        for form, batched in FORMS:
            taken = await paired(
                sizes.pairs, partial(on.ours, batched=batched), partial(on.bare, batched=batched), time.perf_counter
            )
            ratio = Spread.of([a / b for a, b in taken])
            ours, bare = Spread.of([a for a, _ in taken]), Spread.of([b for _, b in taken])
            rows.append(
                Row(
                    number=1,
                    what=f"best-of-8 + 8 verifier calls, 50 ms, {form}: wall / bare",
                    must="<= 1.10",
                    ours=f"{ratio}; {1e3 * ours.median:.1f} / {1e3 * bare.median:.1f} ms",
                    met=ratio.median <= 1.10,
                    figures={"ratio": vars(ratio), "ours_s": vars(ours), "bare_s": vars(bare), "pairs": len(taken)},
                )
            )
    return rows


async def critical(sizes: Sizes) -> list[Row]:
    """Row 2: the same at 500 ms, against the two waits that nothing can avoid."""
    rows, path = [], 2 * sizes.slow
    async with stage(latency=sizes.slow) as on:
        for form, batched in FORMS:
            taken = await paired(
                sizes.slow_pairs, partial(on.ours, batched=batched), partial(on.bare, batched=batched),
                time.perf_counter, warm=1,
            )  # fmt: skip
            ratio, bare = Spread.of([a / path for a, _ in taken]), Spread.of([b / path for _, b in taken])
            rows.append(
                Row(
                    number=2,
                    what=f"the same at {1e3 * sizes.slow:.0f} ms, {form}: wall / critical path",
                    must="<= 1.10",
                    ours=f"{ratio}; bare {bare.median:.3f}",
                    met=ratio.median <= 1.10,
                    figures={"ratio": vars(ratio), "bare": vars(bare), "pairs": len(taken)},
                )
            )
    return rows


async def votes(sizes: Sizes) -> list[Row]:
    """Row 3: what a vote costs that is decided early, in samples that the server was asked for and in waits."""
    rows, latency = [], 0.05
    async with stage(reply="The answer is 42", latency=latency) as on:
        for form, model in (("16 requests", on.singles), ("one of n=16", on.batched)):
            rounds, samples = [], []
            for number in range(sizes.votes + 1):
                on.server.reset()
                start = time.perf_counter()
                result = await solve(
                    question(number), model=model, strategy=SelfConsistency(n=16, stop=VoteDecided()), seed=number
                )
                rounds.append((time.perf_counter() - start) / latency)
                counts = on.server.wait()
                samples.append(counts.choices + counts.aborted_choices)
                assert result.answer == "42", result.answer
            spread = Spread.of(rounds[1:])
            rows.append(
                Row(
                    number=3,
                    what=f"self-consistency 16, VoteDecided, all equal, up to {form}: samples; rounds",
                    must="<= 9; <= 2",
                    ours=f"{max(samples)}; {spread}",
                    met=max(samples) <= 9 and spread.median <= 2,
                    figures={"samples": samples[1:], "rounds": vars(spread)},
                )
            )
    return rows


async def cpu(sizes: Sizes) -> list[Row]:
    """Row 5: the client's CPU for a candidate and its verification, eight solves at a time, without any wait."""
    rows = []
    async with stage() as on:
        for form, batched in FORMS:
            taken = await paired(
                sizes.cpu_pairs, _many(on, sizes.cpu_solves, True, batched),
                _many(on, sizes.cpu_solves, False, batched), time.process_time, warm=1,
            )  # fmt: skip
            ratio, each = Spread.of([a / b for a, b in taken]), 8 * sizes.cpu_solves
            ours, bare = Spread.of([a / each for a, _ in taken]), Spread.of([b / each for _, b in taken])
            rows.append(
                Row(
                    number=5,
                    what=f"client CPU per candidate with its verifier call, {form}: / bare",
                    must="<= 1.5",
                    ours=f"{ratio}; {1e3 * ours.median:.2f} / {1e3 * bare.median:.2f} ms",
                    met=ratio.median <= 1.5,
                    figures={"ratio": vars(ratio), "ours_s": vars(ours), "bare_s": vars(bare), "pairs": len(taken)},
                )
            )
    return rows


def _many(on: Stage, solves: int, ours: bool, batched: bool) -> Work:
    async def run(number: int) -> None:
        places = asyncio.Semaphore(8)

        async def one(k: int) -> None:
            async with places:
                await (on.ours if ours else on.bare)(k, batched=batched)

        await asyncio.gather(*(one(1000 * number + k) for k in range(solves)))

    return run
