"""Searches and revisions beside the same requests sent bare through the same client, and the calls that they make."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from openai import AsyncOpenAI

from benchmarks._rows import Row, Spread
from benchmarks._serving.stage import paired
from tts_plugins import DVTS, BeamSearch, Candidate, ParticleFilter, RecursiveAggregation, Revision, TreeSearch, solve
from tts_plugins.models import OpenAICompatibleModel, StepSettings
from tts_plugins.prompts import revision_turns
from tts_plugins.strategies import BaseStrategy
from tts_plugins.testing import ScriptedReviseModel, ScriptedStepModel
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.types import Problem, Scored
from tts_plugins.verifiers import CallableVerifier

DEPTH, N, M = 5, 16, 4
SAID: dict[str, Any] = {"model": "small", "temperature": 0.8, "max_tokens": 64}


def replies(body: dict[str, Any], index: int) -> Reply:
    """The next of five steps, or an attempt, that depends on the seed alone."""
    last = body["messages"][-1]
    depth = last["content"].count("\n\n") if last["role"] == "assistant" else 0
    text = f"step {index % 99991} takes the half of it and adds six, which gives {index % 101}"
    return Reply(f"{text}. Answer: {index % 7}" if depth == DEPTH - 1 else f"{text}\n\nand so on", tells_stop=True)


def mark(text: str) -> float:
    """A score that depends on the text alone."""
    return (zlib.crc32(text.encode()) % 1000) / 1000


STEPWISE = CallableVerifier(lambda p, c: [mark(s.text) for s in c.steps], name="mark", inline=True)
OVERALL = CallableVerifier(lambda p, c: mark(c.text), name="mark", inline=True)


class Bare:
    """The same requests and nothing else."""

    def __init__(self, client: AsyncOpenAI, batched: bool) -> None:
        self._create, self._batched = client.chat.completions.create, batched

    async def _steps(self, asked: str, steps: Sequence[str], seed: int, n: int) -> list[list[str]]:
        messages: list[Any] = [{"role": "user", "content": asked}]
        if steps:
            messages.append({"role": "assistant", "content": "\n\n".join(steps) + "\n\n"})
        said: dict[str, Any] = {**SAID, "messages": messages, "stop": ["\n\n"]}
        if self._batched:
            made = [await self._create(**said, seed=seed, n=n)]
        else:
            made = await asyncio.gather(*(self._create(**said, seed=seed + j) for j in range(n)))
        return [[*steps, choice.message.content or ""] for reply in made for choice in reply.choices]

    async def beam(self, number: int) -> None:
        """Level by level, all children of a level at once."""
        beams: list[list[str]] = [[]]
        for level in range(DEPTH):
            first = 1000 * number + 100 * level
            grown = await asyncio.gather(
                *(self._steps(question(number), beam, first + 20 * i, N // len(beams)) for i, beam in enumerate(beams))
            )
            beams = sorted((c for found in grown for c in found), key=lambda steps: -mark(steps[-1]))[: N // M]

    async def dvts(self, number: int) -> None:
        """Subtrees side by side."""

        async def subtree(root: int) -> None:
            steps: list[str] = []
            for level in range(DEPTH):
                grown = await self._steps(question(number), steps, 10_000 * number + 1000 * root + 10 * level, M)
                steps = max(grown, key=lambda found: mark(found[-1]))

        await asyncio.gather(*(subtree(root) for root in range(N // M)))

    async def revision(self, number: int) -> None:
        """Chains side by side."""

        async def chain(first: int) -> None:
            problem, attempts = Problem(question(number)), list[Scored]()
            for r in range(4):
                turns: list[Any] = revision_turns(problem, attempts[-4:]) if attempts else problem.messages
                reply = await self._create(**SAID, messages=turns, seed=1000 * number + 10 * first + r)
                text = reply.choices[0].message.content or ""
                attempts.append(Scored(problem=problem, text=text, score=mark(text)))

        await asyncio.gather(*(chain(first) for first in range(4)))


CASES: tuple[tuple[str, BaseStrategy, CallableVerifier, bool, str, int], ...] = (
    ("beam n=16 M=4, 5 steps, a request each", BeamSearch(n=N, beam_width=M), STEPWISE, False, "beam", DEPTH),
    ("beam n=16 M=4, 5 steps, one for each parent", BeamSearch(n=N, beam_width=M), STEPWISE, True, "beam", DEPTH),
    ("DVTS n=16 M=4, 5 steps, a request each", DVTS(n=N, beam_width=M), STEPWISE, False, "dvts", DEPTH),
    ("DVTS n=16 M=4, 5 steps, one for each parent", DVTS(n=N, beam_width=M), STEPWISE, True, "dvts", DEPTH),
    ("revision 4 x 4", Revision(chains=4, rounds=4), OVERALL, False, "revision", 4),
)


def question(number: int) -> str:
    """A problem that no other number has."""
    return f"Problem {number}: a farmer has {number} eggs and sells half of them and then six more, how many are left?"


async def wall(short: bool) -> list[Row]:
    """At 50 ms against bare; at 500 ms against the waits that nothing can avoid."""
    rows: list[Row] = []
    with LoopbackServer(process=True, reply=replies, record=False, latency=0.05) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="-", max_retries=0, timeout=60.0) as client:
            for slow, latency, pairs in (
                (False, 0.05, 2 if short else 15),
                (True, 0.05 if short else 0.5, 1 if short else 3),
            ):
                server.configure(latency=latency)
                for name, strategy, verifier, batched, way, waits in CASES:
                    model = OpenAICompatibleModel(
                        **SAID, batch=N if batched else 1, client=client, steps=StepSettings(way="vllm")
                    )
                    server.reset()
                    twin = getattr(Bare(client, batched), way)
                    ours = partial(_ours, model, strategy, verifier)
                    taken = await paired(pairs, ours, twin, time.perf_counter, warm=1 if slow else 2)
                    rows.append(_row(name, latency, waits, taken, slow, server.counts.peak))
    return rows


async def _ours(model: OpenAICompatibleModel, strategy: BaseStrategy, verifier: CallableVerifier, number: int) -> None:
    result = await solve(question(number), model=model, strategy=strategy, verifier=verifier, seed=number)
    expected = 16 if isinstance(strategy, Revision) else N * DEPTH
    assert result.usage.calls == expected, result.usage


def _row(name: str, latency: float, waits: int, taken: Sequence[tuple[float, float]], slow: bool, peak: int) -> Row:
    ours, bare = Spread.of([a for a, _ in taken]), Spread.of([b for _, b in taken])
    over = [a / (waits * latency) for a, _ in taken] if slow else [a / b for a, b in taken]
    ratio = Spread.of(over)
    return Row(
        number=2 if slow else 1,
        what=f"{name}, {1e3 * latency:.0f} ms: wall / {'critical path' if slow else 'bare'}",
        must="<= 1.10",
        ours=f"{ratio}; {1e3 * ours.median:.0f} / {1e3 * bare.median:.0f} ms bare, peak {peak}",
        met=ratio.median <= 1.10,
        figures={"ratio": vars(ratio), "ours_s": vars(ours), "bare_s": vars(bare), "peak": peak, "pairs": len(taken)},
    )


async def calls() -> list[Row]:
    """What each paper counts, and what is sent."""

    def step(c: Candidate, j: int) -> str:
        return f"step {len(c.steps)} {c.index} {j}" + (f". Answer: {j}" if len(c.steps) == DEPTH - 1 else "")

    def attempt(p: Problem, i: int) -> str:
        return f"attempt {i}. Answer: {i}"

    rows: list[Row] = []
    cases: list[tuple[BaseStrategy, int, str]] = [
        (BeamSearch(n=N, beam_width=M), N * DEPTH, "n x steps"),
        (
            BeamSearch(n=N, beam_width=M, lookahead=1),
            N * 2 * DEPTH - N,
            "n (k + 1) x steps, but the last has none ahead",
        ),
        (DVTS(n=N, beam_width=M), N * DEPTH, "n x steps"),
        (ParticleFilter(n=N), N * DEPTH, "n x steps"),
        (Revision(chains=4, rounds=4), 16, "chains x rounds"),
        (Revision.from_budget(n=64, ratio=4), 64, "n"),
        (TreeSearch(n=16), 16, "n"),
        (RecursiveAggregation(population=8, subset=4, loops=3), 24, "population x loops"),
    ]
    for strategy, expected, formula in cases:
        whole = isinstance(strategy, Revision | TreeSearch | RecursiveAggregation)
        model = ScriptedReviseModel(attempt, lambda p, h, i: attempt(p, 1000 + i)) if whole else ScriptedStepModel(step)
        result = await solve("?", model=model, strategy=strategy, verifier=OVERALL if whole else STEPWISE, seed=1)
        rows.append(
            Row(
                number=0, what=f"calls of {strategy!r}", must=f"{expected} = {formula}", ours=str(result.usage.calls),
                met=result.usage.calls == expected,
            )
        )  # fmt: skip
    return rows
