"""What the server adds to one sample, and how many requests it bears."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks._rows import Row
from benchmarks._server.stage import ask, many, post, proxy, session
from tts_plugins.testing.loopback import LoopbackServer

_LATENCY = 0.02


async def latency(short: bool) -> list[Row]:
    """Rows 1 and 2."""
    count, batches = (20, 1) if short else (300, 8)
    with (
        LoopbackServer(reply="4", latency=_LATENCY, process=True, record=False) as upstream,
        proxy(base_url=upstream.base_url) as server,
    ):
        async with session() as http:
            for url in (upstream.base_url, server.url):
                for _ in range(10):
                    await post(http, url, ask())
            bare, through, cpu = [], [], server.cpu()
            for _ in range(count):  # in turns, so that what the machine does meanwhile meets both
                bare.append(await _timed(http, upstream.base_url))
                through.append(await _timed(http, server.url))
            cpu = 1000 * (server.cpu() - cpu) / count
            ratio = statistics.median(through) / statistics.median(bare)
            added = 1000 * (statistics.median(through) - statistics.median(bare))
            rates = [await _rates(http, upstream.base_url, server.url, short) for _ in range(batches)]
    client, raw, ours = (statistics.median(rate[i] for rate in rates) for i in range(3))
    return [
        Row(number=1, what="one sample: median latency added", must="<= 5 ms",
            ours=f"{added:.2f} ms ({ratio:.2f} of the bare upstream; {cpu:.1f} ms of the server's CPU)", met=added <= 5,
            figures={"cpu": cpu, "bare": statistics.median(bare), "through": statistics.median(through)}),
        Row(number=2, what="requests a second at 64, through the server; the bare openai client; a raw client",
            must=">= the openai client", ours=f"{ours:.0f}; {client:.0f}; {raw:.0f}", met=ours >= client,
            figures={"through": ours, "openai": client, "raw": raw}),
    ]  # fmt: skip


async def _timed(http: Any, url: str) -> float:
    start = time.perf_counter()
    status, _ = await post(http, url, ask())
    assert status == 200
    return time.perf_counter() - start


async def _rates(http: Any, bare: str, through: str, short: bool) -> tuple[float, float, float]:
    """Of the openai client at the upstream, of a raw client there, and of the raw client through the server."""
    import openai

    count = 64 if short else 256
    client = openai.AsyncOpenAI(base_url=bare, api_key="-", max_retries=0)
    body = ask()

    async def by_client(i: int) -> Any:
        return await client.chat.completions.create(**body)

    async def raw(i: int) -> Any:
        return await post(http, bare, body)

    async def ours(i: int) -> Any:
        status, _ = await post(http, through, body)
        assert status == 200

    out = []
    for one in (by_client, raw, ours):
        await many(64, 64, one)
        start = time.perf_counter()
        await many(count, 64, one)
        out.append(count / (time.perf_counter() - start))
    await client.close()
    return out[0], out[1], out[2]
