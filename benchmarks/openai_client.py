"""What the scaled OpenAI client must reach, measured: `python -m benchmarks.openai_client [--short] [--json FILE]`.

"Bare" is the same requests sent at once through the same client: one request of 8 choices, or, where the server ignores
`n`, 8 requests of one; each choice is followed by the same function. Pairs are interleaved, and which of the two goes
first alternates.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from tts_plugins_openai import result_of, scale

from benchmarks._rows import Row
from benchmarks._serving.paired_runs import N, Pair, all_of, command, crowded, threaded, tokens, walls
from benchmarks._serving.stage import paired
from tts_plugins import BestOfN, Budget, Ledger
from tts_plugins.testing.loopback import LoopbackServer

ASKED: dict[str, Any] = {
    "model": "m", "max_tokens": 24, "temperature": 0.8,
    "messages": [{"role": "user", "content": "What is it, and why?"}],
}  # fmt: skip


class Number(BaseModel):
    """What `parse` is asked for."""

    value: int


def check(message: Any) -> float:
    """A verifier of microseconds."""
    return (len(message.content) % 7) / 7


async def taken(pairs: int, latency: float, *, batched: bool) -> list[Pair]:
    """Seconds of ours and of bare, pair by pair."""
    host = LoopbackServer(reply="seeded", latency=latency, process=True, record=False, honours_n=batched)
    with host as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
            scaled = scale(client, strategy=BestOfN(n=N), verifier=check, budget=Budget(tokens=100_000))

            async def bare(number: int) -> None:
                sizes = [N] if batched else [1] * N
                create = client.chat.completions.create
                found = await asyncio.gather(*(create(**ASKED, n=n, seed=i) for i, n in enumerate(sizes)))
                max((c.message for reply in found for c in reply.choices), key=check)

            async def ours(number: int) -> None:
                await scaled.chat.completions.create(**ASKED)

            return await paired(pairs, ours, bare, time.perf_counter, warm=3)


def wall(short: bool) -> list[Row]:
    """Rows 1 and 2, in both forms."""
    rows: list[Row] = []
    for form, batched in (("one of n=8", True), ("8 requests", False)):
        measured = partial(_run, batched=batched)
        rows += walls(measured, "chat.completions.create", "bare", short=short, form=f", {form}")
    return rows


def _run(pairs: int, latency: float, *, batched: bool) -> list[Pair]:
    return asyncio.run(taken(pairs, latency, batched=batched))


def counted() -> Row:
    """Row 3: plain and streaming, both for a server that honours `n` and for one that does not; and `parse`."""
    ratios = []
    for honours_n in (True, False):
        for stream in (False, True):
            with LoopbackServer(reply="seeded", honours_n=honours_n) as server, _client(server) as client:
                account = Ledger(Budget(tokens=1_000_000))
                # Of fixed seeds: texts of a few tokens prove nothing of a count for all choices, and are charged more.
                scaled = scale(client, strategy=BestOfN(n=N), verifier=check, budget=account, seed=0)
                for _ in range(3):
                    answer = scaled.chat.completions.create(**ASKED, stream=stream)
                    if stream:
                        list(answer)
                ratios.append(account.spent.tokens / server.wait().tokens)
    with LoopbackServer(reply=['{ "value" : 1 }', "no JSON"]) as server, _client(server) as client:
        account = Ledger(Budget(tokens=1_000_000))
        scale(client, n=8, budget=account).chat.completions.parse(**ASKED, response_format=Number)
        ratios.append(account.spent.tokens / server.wait().tokens)
    return tokens(3, "n honoured and not, plain and streaming each; parse", ratios)


async def crowd(short: bool) -> Row:
    """Row 4: many calls of one scaled client over one ledger."""
    calls, limit = (16, 1_000) if short else (64, 4_000)
    with LoopbackServer(reply="seeded", latency=0.01) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
            account = Ledger(Budget(tokens=limit))
            scaled = scale(client, strategy=BestOfN(n=4), verifier=check, budget=account)
            create = scaled.chat.completions.create
            await all_of(create(**ASKED) for _ in range(calls))
        counted = server.wait().tokens
    return crowded(
        4, f"{calls} concurrent calls", limit=limit, counted=counted, spent=account.spent.tokens,
        overshoot=account.overshoot.tokens,
    )  # fmt: skip


async def threads() -> Row:
    """Row 5: the synchronous client inside a running event loop, and from 8 threads."""
    with LoopbackServer(reply="seeded", latency=0.02) as server, _client(server) as client:
        scaled = scale(client, strategy=BestOfN(n=N), verifier=check)

        def samples(number: int) -> int:
            return len(result_of(scaled.chat.completions.create(**ASKED)).candidates)

        here = samples(0)
        with ThreadPoolExecutor(8) as pool:
            return threaded(5, here, list(pool.map(samples, range(8))))


def _client(server: LoopbackServer) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key="-", max_retries=0)


def measure(short: bool) -> list[Row]:
    """All rows."""
    return [*wall(short), counted(), asyncio.run(crowd(short)), asyncio.run(threads())]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return command("openai_client", __doc__, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
