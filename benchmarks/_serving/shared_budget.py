"""Row 4: many concurrent solves on one account that holds half of what they need."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from openai import OpenAIError

from benchmarks._rows import Row, Sizes
from benchmarks._serving.stage import MAX_TOKENS, SAID, Stage, question, stage
from tts_plugins import BestOfN, Budget, Ledger, Result, SelfConsistency, solve
from tts_plugins.errors import TTSError
from tts_plugins.testing.loopback import Fault

PLACES = 256  # for each of the three models; the client's pool has 1000 connections
# Seconds. Below 0.1 the peak says how fast the client is, not what the account lets run: at a mean of 0.05 it was 30 to
# 130, by the client's version.
LATENCY = (0.1, 0.3)
RESETS = Fault.random(0.05, seed=7)


async def crowd(sizes: Sizes) -> list[Row]:
    """The account's promise, kept or not, and what checking before each call would have come to."""
    async with stage(latency=LATENCY, concurrency=PLACES) as on:
        whole = Ledger()
        await _all(on, sizes.crowd, whole)
        need = on.server.wait().tokens
        ledger = Ledger(Budget(tokens=need // 2))
        on.server.configure(faults=RESETS, reply=on.server.settings.reply)
        on.server.reset()
        start = time.perf_counter()
        ends = await _all(on, sizes.crowd, ledger)
        seconds = time.perf_counter() - start
        counts = on.server.wait()
    checked = await _check_then_act(sizes.crowd)
    limit, spent = need // 2, ledger.spent.tokens
    over = max(ledger.overshoot.tokens, spent - limit, counts.tokens - limit, 0)
    use, truly = spent / limit, counts.tokens / limit
    figures: dict[str, Any] = {
        "need": need, "counted_without_limit": whole.usage.tokens, "limit": limit, "spent": spent,
        "server_tokens": counts.tokens, "server_aborted_tokens": counts.aborted_prompt_tokens
        + counts.aborted_completion_tokens, "overshoot": over, "peak": counts.peak, "requests": counts.requests,
        "faults": counts.faults, "open_holds": ledger.open_holds, "held": ledger.held.tokens, "ends": dict(ends),
        "seconds": seconds, "check_then_act": checked,
    }  # fmt: skip
    what = f"{sizes.crowd} solves, one ledger of half their need, resets"
    ended = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    return [
        Row(number=4, what=f"{what}: overshoot, tokens", must="0", met=over == 0, figures=figures,
            ours=f"{over} (server {counts.tokens}, ledger {spent}, limit {limit}; check-then-act {checked:+.0%})"),
        Row(number=4, what=f"{what}: use of the budget", must=">= 95 %", met=use >= 0.95,
            ours=f"{use:.1%}; {truly:.1%} by the server, the rest is what {counts.faults} resets hold"),
        Row(number=4, what=f"{what}: peak concurrency", must=">= 64", met=counts.peak >= 64,
            ours=f"{counts.peak}; {counts.requests} requests in {seconds:.1f} s"),
        Row(number=4, what=f"{what}: how they ended", ours=ended),
    ]  # fmt: skip


async def _all(on: Stage, count: int, ledger: Ledger) -> Counter[str]:
    """A mix: votes and judged ones, by single requests and by n=8."""

    async def one(number: int) -> str:
        model = on.batched if number % 2 else on.singles
        judged = number % 4 < 2
        try:
            result: Result = await solve(
                question(number), model=model, budget=ledger, seed=number, verifier=on.judge if judged else None,
                strategy=BestOfN(n=8) if judged else SelfConsistency(n=8),
            )  # fmt: skip
        except TTSError as error:
            return type(error).__name__
        return result.stopped

    return Counter(await asyncio.gather(*(one(i) for i in range(count))))


async def _check_then_act(count: int) -> float:
    """How far beyond its limit a crowd goes that looks before each call whether something is left.

    The same samples, as single requests without judges, as many at once, the same resets and half of their need.
    """
    async with stage(latency=LATENCY) as on:
        need, spent, places = 0, 0, asyncio.Semaphore(3 * PLACES)

        async def one(number: int, seed: int, limit: int | None) -> None:
            nonlocal spent
            async with places:
                if limit is not None and spent + MAX_TOKENS > limit:
                    return
                messages: list[Any] = [{"role": "user", "content": question(number)}]
                try:
                    reply = await on.client.chat.completions.create(**SAID, messages=messages, seed=seed)
                except OpenAIError:
                    return
                spent += reply.usage.total_tokens if reply.usage else 0

        async def everything(limit: int | None) -> int:
            on.server.reset()
            await asyncio.gather(*(one(i, 1000 * i + k, limit) for i in range(count) for k in range(8)))
            return (await asyncio.to_thread(on.server.wait)).tokens

        need = await everything(None)
        spent = 0
        on.server.configure(faults=RESETS)
        return await everything(need // 2) / (need // 2) - 1
