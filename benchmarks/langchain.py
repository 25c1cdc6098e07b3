"""What the LangChain integration must reach, measured: `python -m benchmarks.langchain [--short] [--json FILE]`.

"Bare" is the same requests sent at once through the same framework: `asyncio.gather` of 8 `ainvoke`s of the same
chain, each followed by the same function. Pairs are interleaved, and which of the two goes first alternates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale

from benchmarks._rows import Row, Spread, table
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency
from tts_plugins.errors import BudgetExhausted
from tts_plugins.testing.loopback import LoopbackServer

PROMPT = ChatPromptTemplate.from_template("What is {x}, and why do you think so?")
N = 8


def check(output: str) -> float:
    """A verifier of microseconds."""
    return (len(output) % 7) / 7


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    """A real client of the server; its own retries are off."""
    return ChatOpenAI(
        model="m", base_url=server.base_url, api_key="-", **{"max_tokens": 24, "max_retries": 0, **settings}
    )


def chain_of(model: Any) -> Any:
    """prompt | model | parser."""
    return PROMPT | model | StrOutputParser()


async def walls(pairs: int, latency: float) -> tuple[list[float], list[float]]:
    """Seconds of ours and of bare, pair by pair."""
    with LoopbackServer(reply="seeded", latency=latency, process=True, record=False) as server:
        chain = chain_of(chat(server))
        scaled = scale(chain, strategy=BestOfN(n=N), verifier=check, budget=Budget(tokens=100_000))

        async def ours() -> None:
            await scaled.ainvoke({"x": 1})

        async def bare() -> None:
            outputs = await asyncio.gather(*(chain.ainvoke({"x": 1}) for _ in range(N)))
            max(outputs, key=check)

        for _ in range(3):
            await ours()
            await bare()
        taken: dict[Callable[[], Awaitable[None]], list[float]] = {ours: [], bare: []}
        for pair in range(pairs):
            for work in (ours, bare) if pair % 2 else (bare, ours):
                start = time.perf_counter()
                await work()
                taken[work].append(time.perf_counter() - start)
        return taken[ours], taken[bare]


async def wall(short: bool) -> list[Row]:
    """Rows 1 and 2."""
    ours, bare = await walls(3 if short else 15, 0.05)
    ratio = Spread.of([a / b for a, b in zip(ours, bare, strict=True)])
    rows = [
        Row(
            number=1, what="best-of-8 over prompt | model | parser, a function verifies, 50 ms: wall / bare",
            must="<= 1.10", met=ratio.median <= 1.10,
            ours=f"{ratio}; {1e3 * Spread.of(ours).median:.1f} / {1e3 * Spread.of(bare).median:.1f} ms",
            figures={"ratio": vars(ratio), "ours_s": ours, "bare_s": bare},
        )
    ]  # fmt: skip
    latency = 0.1 if short else 0.5
    ours, bare = await walls(1 if short else 15, latency)
    path, alone = Spread.of([a / latency for a in ours]), Spread.of([b / latency for b in bare])
    rows.append(
        Row(
            number=2, what=f"the same at {1e3 * latency:.0f} ms: wall / {1e3 * latency:.0f} ms", must="<= 1.15",
            met=path.median <= 1.15, ours=f"{path}; bare {alone.median:.3f}",
            figures={"ours": vars(path), "bare": vars(alone)},
        )
    )  # fmt: skip
    return rows


def agents() -> Row:
    """Row 3: model calls a turn, how many at once, and tokens of candidates in the message stream."""
    with LoopbackServer(reply="It is done.", latency=0.05) as server:
        app = create_agent(chat(server), [], middleware=[TestTimeScaling(strategy=SelfConsistency(n=4))])
        messages = [m for m, _ in app.stream({"messages": [("human", "hi")]}, stream_mode="messages")]
        counts = server.wait()
    leaked = sum(len(m.text.split()) for m in messages[1:])
    ours = (counts.choices, counts.peak, leaked)
    what = "create_agent, TestTimeScaling n=4: calls a turn, peak, tokens leaked to the message stream"
    return Row(number=3, what=what, must="4, 4, 0", ours=", ".join(map(str, ours)), met=ours == (4, 4, 0))


def tokens() -> list[Row]:
    """Row 4: tokens in the ledger over tokens that the server counted, for every way in."""
    ways: dict[str, Callable[[Any, Ledger], Any]] = {
        "scale": lambda model, account: scale(chain_of(model), verifier=check, n=4, budget=account),
        "ScaledChatModel": lambda model, account: PROMPT | ScaledChatModel(model, n=4, budget=account),
        "TestTimeScaling": lambda model, account: (
            PROMPT
            | (lambda p: {"messages": p.to_messages()})
            | create_agent(model, [], middleware=[TestTimeScaling(n=4, budget=account)])
        ),
    }
    rows = []
    for name, make in ways.items():
        ratios = []
        for settings in ({}, {"streaming": True, "stream_usage": True}):
            for cached in (False, True):
                set_llm_cache(InMemoryCache() if cached else None)
                with LoopbackServer(reply="seeded") as server:
                    account = Ledger(Budget(tokens=1_000_000))
                    runnable = make(chat(server, **settings), account)
                    for x in (1, 2, 1):
                        runnable.invoke({"x": x})
                    list(runnable.stream({"x": 3}))
                    ratios.append(account.spent.tokens / server.wait().tokens)
        set_llm_cache(None)
        what = f"{name}: tokens in the ledger / counted by the server, plain and streaming, cached and not"
        rows.append(
            Row(number=4, what=what, must="1", ours=", ".join(f"{r:g}" for r in ratios), met=set(ratios) == {1.0})
        )
    return rows


async def crowd(short: bool) -> Row:
    """Row 5: many wrapped chains over one ledger."""
    chains, limit = (16, 1_000) if short else (64, 4_000)
    with LoopbackServer(reply="seeded", latency=0.01) as server:
        account = Ledger(Budget(tokens=limit))
        scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=4), verifier=check, budget=account)
        found = await asyncio.gather(*(scaled.ainvoke({"x": i}) for i in range(chains)), return_exceptions=True)
        counted = server.wait().tokens
    for error in found:
        if isinstance(error, BaseException) and not isinstance(error, BudgetExhausted):
            raise error
    over = max(counted - limit, account.overshoot.tokens)
    return Row(
        number=5, what=f"{chains} wrapped chains over one ledger of {limit} tokens: overshoot; used", must="0",
        ours=f"{over}; {counted}", met=over == 0 and counted == account.spent.tokens,
    )  # fmt: skip


async def threads() -> Row:
    """Row 6: sync invoke inside a running event loop, from 8 threads."""
    with LoopbackServer(reply="seeded", latency=0.02) as server:
        scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=N), verifier=check)
        here = len(scaled.solve({"x": 0}).candidates)
        with ThreadPoolExecutor(8) as pool:
            samples = [len(r.candidates) for r in pool.map(lambda x: scaled.solve({"x": x}), range(8))]
    return Row(
        number=6, what="sync invoke inside a running loop, and from 8 threads: samples each", must="8",
        met={here, *samples} == {N}, ours=f"{here}; {samples}",
    )  # fmt: skip


async def measure(short: bool) -> list[Row]:
    """All rows."""
    return [*await wall(short), await asyncio.to_thread(agents), *await asyncio.to_thread(tokens), await crowd(short),
            await threads()]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.langchain", description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows = asyncio.run(measure(given.short))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}; medians (quartiles)\n")
    print(table(rows))
    if given.json:
        told = {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]}
        partial = Path(given.json + ".partial")
        partial.write_text(json.dumps(told, indent=1))
        partial.replace(given.json)
    return 0 if given.short or all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
