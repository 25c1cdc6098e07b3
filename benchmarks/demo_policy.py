"""A policy learned on one half of the demo's messages, run live on the other half, and the halves swapped.

    python -m benchmarks.demo_policy --pool FILE [--messages demo|heldout] [--record] [--seed S] [--json FILE]

With `--record`, eight candidates for each message are taken from the embedded model and kept in FILE, once. Then a
`LearnedStopping` rule and a `ComputeOptimal` policy are fitted to the recorded half, and run live beside Best-of-8 and
beside the simple rule that stops at the first candidate without fault. Tokens are all that was paid for, prompts too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.demo_heldout import load as heldout
from tts_plugins import BestOfN, Candidate, Problem, Result, solve
from tts_plugins.demo import demo_model, task
from tts_plugins.models import LocalModel
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem, PoolWriter
from tts_plugins.protocols import Strategy
from tts_plugins.verifiers import CallableVerifier

N = 8


def record_of(text: str) -> str | None:
    """The vote of a reply: its record, written in one way."""
    found = task.parse(text)
    return None if found is None else json.dumps(found, sort_keys=True).casefold()


def check(problem: Problem, candidate: Candidate) -> Any:
    """The demo's verifier: sees the message, and never the known record."""
    return task.check(problem.metadata["text"], candidate.text)


VERIFIER = CallableVerifier(check, inline=True)


async def answer(model: LocalModel, example: task.Example, strategy: Strategy, seed: int) -> Result:
    """One message, solved."""
    problem = Problem(task.messages(example.text), id=example.id, metadata={"text": example.text})
    return await solve(problem, model=model, strategy=strategy, verifier=VERIFIER, seed=seed, answer=record_of)


async def record(model: LocalModel, examples: Sequence[task.Example], path: Path, seed: int) -> None:
    """Eight candidates for each message, into a pool; the file appears when all are there."""
    header = PoolHeader(
        model=model.name, dataset="tts-plugins demo messages", licence="Apache-2.0", verifier=VERIFIER.name,
        note="correct: the reply is the known record; score: the demo's verifier",
    )  # fmt: skip
    with PoolWriter(path, header) as writer:
        for number, example in enumerate(examples):
            result = await answer(model, example, BestOfN(n=N), seed * 1_000_003 + number)
            made = tuple(
                PoolCandidate(
                    text=c.text, answer=c.answer, tokens=c.tokens, score=c.score, truncated=c.truncated,
                    correct=task.matches(example.record, c.text),
                )
                for c in result.candidates
            )  # fmt: skip
            writer.add(
                PoolProblem(
                    id=example.id, prompt=example.text, answer=json.dumps(example.record), level=example.level,
                    candidates=made, prompt_tokens=round(result.usage.prompt_tokens / result.usage.calls),
                )
            )  # fmt: skip
            print(f"  recorded {number + 1} of {len(examples)}", file=sys.stderr, flush=True)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, metavar="FILE", help="recorded candidates")
    parser.add_argument("--messages", choices=("demo", "heldout"), default="demo")
    parser.add_argument("--record", action="store_true", help="record FILE first, where it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only-record", action="store_true", help="record, and measure nothing")
    return parser.parse_args(arguments)


async def main(given: argparse.Namespace) -> int:
    """Record where asked, then measure; 1 where there is no pool."""
    examples = task.load() if given.messages == "demo" else heldout()
    model = demo_model()
    try:
        if (given.record or given.only_record) and not given.pool.exists():
            await record(model, examples, given.pool, given.seed)
        if given.only_record:
            return 0
        if not given.pool.exists():
            print(f"no file {given.pool}; record it with --record", file=sys.stderr)
            return 1
        Pool.read(given.pool)
        return 0
    finally:
        await model.aclose()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parsed())))
