"""Many callers on an account of half their need, each asking for four choices in one request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from benchmarks._rows import Row
from tts_plugins import Budget, Ledger, SelfConsistency, solve
from tts_plugins.errors import TTSError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import LoopbackServer, seeded

CALLERS, LATENCY, MAX_TOKENS = 512, (0.05, 0.2), 64


async def _all(server: Any, callers: int, ledger: Ledger) -> Counter[str]:
    """Prompts of a few bytes, each another one; a server that is not known."""
    model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=MAX_TOKENS, concurrency=512)

    async def one(number: int) -> str:
        try:
            result = await solve(f"q{number}", model=model, strategy=SelfConsistency(n=4), budget=ledger, seed=number)
        except TTSError as error:
            return type(error).__name__
        return result.stopped

    ends = Counter(await asyncio.gather(*(one(i) for i in range(callers))))
    await model.aclose()
    return ends


async def measure(callers: int) -> dict[str, Any]:
    """What ran at once, and what was spent; counts are the server's."""
    with LoopbackServer(process=True, latency=LATENCY, reply=seeded, record=False) as server:
        whole = Ledger()
        await _all(server, callers, whole)
        limit = server.wait().tokens // 2
        server.reset()
        ledger, loop = Ledger(Budget(tokens=limit)), asyncio.get_running_loop()
        started = loop.time()
        ends = await _all(server, callers, ledger)
        seconds, counts = loop.time() - started, server.wait()
    over = max(ledger.overshoot.tokens, ledger.spent.tokens - limit, counts.tokens - limit, 0)
    return {"peak": counts.peak, "overshoot": over, "limit": limit, "spent": ledger.spent.tokens, "seconds": seconds,
            "ends": dict(ends), "requests": counts.requests}  # fmt: skip


def rows(short: bool) -> list[Row]:
    """Two rows: how many were in flight at once, and what went over."""
    reported = asyncio.run(measure(16 if short else CALLERS))
    what = f"{16 if short else CALLERS} callers, n=4 in one request, an account of half their need"
    return [
        Row(number=0, what=f"{what}: peak in flight", must="" if short else ">= 64", figures=reported,
            met=None if short else reported["peak"] >= 64,
            ours=f"{reported['peak']}; {reported['requests']} requests in {reported['seconds']:.1f} s"),
        Row(number=0, what=f"{what}: overshoot", must="0", met=reported["overshoot"] == 0,
            ours=f"{reported['overshoot']} of {reported['limit']}, {reported['spent'] / reported['limit']:.0%} used"),
    ]  # fmt: skip
