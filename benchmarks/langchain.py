"""What the LangChain integration must reach, measured: `python -m benchmarks.langchain [--short] [--json FILE]`.

"Bare" is the same requests sent at once through the same framework: `asyncio.gather` of 8 `ainvoke`s of the same
chain, each followed by the same function. Pairs are interleaved, and which of the two goes first alternates.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale

from benchmarks._rows import Row
from benchmarks._serving.paired_runs import N, Pair, all_of, command, crowded, threaded, tokens, walls
from benchmarks._serving.stage import paired
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency
from tts_plugins.testing.loopback import LoopbackServer

PROMPT = ChatPromptTemplate.from_template("What is {x}, and why do you think so?")


def check(output: str) -> float:
    """A verifier of microseconds."""
    return (len(output) % 7) / 7


def chat(server: LoopbackServer, **settings: Any) -> ChatOpenAI:
    """A real client of the server; its own retries are off."""
    settings = {"model": "m", "max_tokens": 24, "max_retries": 0, **settings}
    return ChatOpenAI(base_url=server.base_url, api_key="-", **settings)


def chain_of(model: Any) -> Any:
    """prompt | model | parser."""
    return PROMPT | model | StrOutputParser()


async def taken(pairs: int, latency: float) -> list[Pair]:
    """Seconds of ours and of bare, pair by pair."""
    with LoopbackServer(reply="seeded", latency=latency, process=True, record=False) as server:
        chain = chain_of(chat(server))
        scaled = scale(chain, strategy=BestOfN(n=N), verifier=check, budget=Budget(tokens=100_000))

        async def bare(number: int) -> None:
            outputs = await asyncio.gather(*(chain.ainvoke({"x": 1}) for _ in range(N)))
            max(outputs, key=check)

        return await paired(pairs, lambda number: scaled.ainvoke({"x": 1}), bare, time.perf_counter, warm=3)


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


def counted() -> list[Row]:
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
        rows.append(tokens(4, f"{name}, plain and streaming, cached and not", ratios))
    return rows


async def crowd(short: bool) -> Row:
    """Row 5: many wrapped chains over one ledger."""
    chains, limit = (16, 1_000) if short else (64, 4_000)
    with LoopbackServer(reply="seeded", latency=0.01) as server:
        account = Ledger(Budget(tokens=limit))
        scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=4), verifier=check, budget=account)
        await all_of(scaled.ainvoke({"x": i}) for i in range(chains))
        counted = server.wait().tokens
    return crowded(
        5, f"{chains} wrapped chains", limit=limit, counted=counted, spent=account.spent.tokens,
        overshoot=account.overshoot.tokens,
    )  # fmt: skip


async def threads() -> Row:
    """Row 6: sync invoke inside a running event loop, from 8 threads."""
    with LoopbackServer(reply="seeded", latency=0.02) as server:
        scaled = scale(chain_of(chat(server)), strategy=BestOfN(n=N), verifier=check)
        here = len(scaled.solve({"x": 0}).candidates)
        with ThreadPoolExecutor(8) as pool:
            samples = [len(r.candidates) for r in pool.map(lambda x: scaled.solve({"x": x}), range(8))]
    return threaded(6, here, samples)


def measure(short: bool) -> list[Row]:
    """All rows. Each loop has a server of its own: ChatOpenAI shares connections between objects of one address."""

    def measured(pairs: int, latency: float) -> list[Pair]:
        return asyncio.run(taken(pairs, latency))

    rows = walls(measured, "prompt | model | parser", "bare", short=short)
    return [*rows, agents(), *counted(), asyncio.run(crowd(short)), asyncio.run(threads())]


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return command("langchain", __doc__, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
