"""A policy learned on one half of the demo's messages, run live on the other half, and the halves swapped.

    python -m benchmarks.demo_policy --pool FILE [--messages demo|heldout] [--record] [--seed S] [--json FILE]

With `--record`, eight candidates for each message are taken from the embedded model and kept in FILE, once. Then a
`LearnedStopping` rule and a `ComputeOptimal` policy are fitted to the recorded half, and run live beside Best-of-8 and
beside the simple rule that stops at the first candidate without fault. Tokens are all that was paid for, prompts too.
Live samples have seeds of their own: other samples than the recorded ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.demo_heldout import load as heldout
from tts_plugins import BestOfN, Candidate, Problem, Result, solve
from tts_plugins.demo import demo_model, task
from tts_plugins.metrics import Estimate, paired_bootstrap
from tts_plugins.models import LocalModel
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem, PoolWriter
from tts_plugins.protocols import Strategy
from tts_plugins.stopping import Threshold
from tts_plugins.verifiers import CallableVerifier

N = 8
LIVE = 500_000  # apart from the seeds of the recording: other samples of the same messages


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to spend, live: right or not, samples and tokens, message by message."""

    name: str
    right: Mapping[str, float]
    samples: Mapping[str, float]
    tokens: Mapping[str, float]

    def over(self, other: Row) -> Estimate:
        """Paired difference in accuracy."""
        return paired_bootstrap([[v] for v in self.right.values()], [[other.right[k]] for k in self.right])

    def saved(self, other: Row) -> Estimate:
        """How many times this one's tokens the other took, paired."""
        return paired_bootstrap(
            [[other.tokens[k]] for k in self.tokens], [[v] for v in self.tokens.values()], ratio=True
        )


def plans(half: Pool) -> Mapping[str, Strategy]:
    """What is run: Best-of-8, the simple rule, and what was fitted to the half that it will not run on."""
    extra = sum(p.prompt_tokens or 0 for p in half.problems) / len(half.problems)
    rule = LearnedStopping.fit(half, n=N, select="best", target=0.01, extra_tokens=extra)
    policy = calibrate(half, budgets=(N,), target=0.01, batch=1)  # as the demo asks: one sample a request
    print(f"  learned: {rule}; policy: {policy.plans[0].fixed}, {len(policy.plans[0].stages)} stages", flush=True)
    return {
        f"Best-of-{N}": BestOfN(n=N),
        "Threshold(1.0)": BestOfN(n=N, stop=Threshold(1.0), wave=1),
        "LearnedStopping": BestOfN(n=N, stop=rule, wave=1),
        "ComputeOptimal": policy,
    }


async def live(
    model: LocalModel, examples: Sequence[task.Example], pool: Pool, seed: int, limit: int | None
) -> list[Row]:
    """Fitted to each half, run on the other one."""
    by_id = {e.id: (number, e) for number, e in enumerate(examples)}
    halves = pool.split(2, seed=seed)
    reported: dict[str, list[tuple[str, float, float, float]]] = {}
    for i, half in enumerate(halves):
        ways = plans(halves[1 - i])
        for done, p in enumerate(half.problems[:limit]):
            number, example = by_id[p.id]
            for name, strategy in ways.items():  # one after the other, so that each finds the machine alike
                result = await answer(model, example, strategy, seed * 1_000_003 + LIVE + number)
                right = float(task.matches(example.record, result.text))
                reported.setdefault(name, []).append((p.id, right, result.usage.calls, result.usage.tokens))
            print(f"  half {i + 1}: {done + 1} of {len(half.problems)}", file=sys.stderr, flush=True)
    return [
        Row(name=name, right={r[0]: r[1] for r in rows}, samples={r[0]: r[2] for r in rows},
            tokens={r[0]: r[3] for r in rows})
        for name, rows in reported.items()
    ]  # fmt: skip


def show(rows: Sequence[Row]) -> dict[str, Any]:
    """Print the table; its figures."""
    full, out = rows[0], dict[str, Any]()
    print(f"{'':18}{'right':>6}{'samples':>9}{'tokens':>9}   accuracy to Best-of-{N}; its tokens / these (paired 95 %)")
    for row in rows:
        k = len(row.right)
        figures = {"right": sum(row.right.values()), "of": k, "samples": sum(row.samples.values()) / k,
                   "tokens": sum(row.tokens.values()) / k, "over": vars(row.over(full)),
                   "saved": vars(row.saved(full))}  # fmt: skip
        print(f"{row.name:18}{figures['right']:6.0f}{figures['samples']:9.2f}{figures['tokens']:9.0f}   "
              f"{row.over(full)}; {row.saved(full)}")  # fmt: skip
        out[row.name] = figures
    return out


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, metavar="FILE", help="recorded candidates")
    parser.add_argument("--messages", choices=("demo", "heldout"), default="demo")
    parser.add_argument("--record", action="store_true", help="record FILE first, where it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, metavar="N", help="only so many messages of each half, live")
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
        pool = Pool.read(given.pool)
        reported = show(await live(model, examples, pool, given.seed, given.limit))
    finally:
        await model.aclose()
    if given.json is not None:
        partial = given.json.with_name(given.json.name + ".partial")
        partial.write_text(json.dumps({"model": model.name, "messages": given.messages, "rows": reported}, indent=1))
        partial.replace(given.json)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parsed())))
